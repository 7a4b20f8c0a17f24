// The server that is attacked: how requests and bytes come to it, and how much memory it has. XP_PID is its process.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import http from "node:http";
import { endpoint } from "./xp.mjs";

/** MiB above what it was before an attack. */
export const MOST_MEMORY = 64;

const pid = process.env.XP_PID;
assert.ok(pid, "XP_PID is not set: the process that is attacked");

export const target = new URL(endpoint);

/** Resident memory in MiB: now (VmRSS), or the highest since `forgetPeak` (VmHWM). */
export async function memory(name) {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(status.match(new RegExp(`${name}:\\s+(\\d+)`))[1]) / 1024;
}

export const forgetPeak = () => writeFile(`/proc/${pid}/clear_refs`, "5");

export const peakAbove = async (idle) => Math.max(0, (await memory("VmHWM")) - idle);

export function send({ method = "POST", path = "/graphql", headers = {}, body }) {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { host: target.hostname, port: target.port, method, path, agent: false, timeout: 30_000,
        headers: { "content-type": "application/json", ...(body && { "content-length": body.length }), ...headers } },
      async (response) => {
        let text = "";
        try {
          for await (const part of response) text += part;
          resolve({ status: response.statusCode, text });
        } catch (error) {
          reject(error);
        }
      },
    );
    // A body that is too long is refused while it is still being sent.
    request.on("error", (error) => setTimeout(() => reject(error), 100));
    request.on("timeout", () => request.destroy(new Error("no answer")));
    request.end(body);
  });
}

export function printTable(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  for (const row of rows) console.log(row.map((cell, column) => String(cell).padEnd(widths[column])).join("  ").trimEnd());
  const highest = (column) => Math.max(...rows.slice(1).map((row) => Number(row[column])));
  console.log(`${rows.length - 1} attacks · highest: ${highest(4)} MiB`);
}
