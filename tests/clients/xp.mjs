// The running server under test: XP_URL says where it is. Not here: starting it.
import assert from "node:assert/strict";

assert.ok(process.env.XP_URL, "XP_URL is not set: start the server and give its address, such as http://127.0.0.1:8080");

export const endpoint = new URL("/graphql", process.env.XP_URL).href;

/** Who may ask for everything: XP_TOKEN, else the first account of the playground. */
export async function token() {
  if (process.env.XP_TOKEN) return process.env.XP_TOKEN;
  const response = await fetch(new URL("/playground/config.json", endpoint));
  assert.ok(response.ok, "XP_TOKEN is not set, and the server offers no demo account");
  return (await response.json()).accounts[0].token;
}

/** The value of a counter, all labels added up. */
export async function counter(name, labels = "") {
  const text = await (await fetch(new URL("/metrics", endpoint))).text();
  const lines = text.split("\n").filter((line) => line.startsWith(name) && line.includes(labels));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
