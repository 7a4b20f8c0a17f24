// What an attack costs the server, and everybody else: how much memory it takes at most, and how long others wait for
// answers meanwhile. Others ask from another address, since the server gives each address its share. Not here: the
// attacks (pressure.test.mjs), the questions of others (others.mjs).
import assert from "node:assert/strict";
import { once } from "node:events";
import { setTimeout as wait } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { forgetPeak, memory, MOST_MEMORY, peakAbove, target } from "./attacked.mjs";
import { endpoint } from "./xp.mjs";

/** Milliseconds that others may have to wait at the 99th percentile, above twice what they wait when nobody attacks. */
export const MOST_WAITING = 100;
/** How often an attack is tried that made others wait: another program may have kept the machine busy. */
const TRIES = 3;
/** Attackers of each kind. */
export const ATTACKERS = 16;
const OTHERS_ADDRESS = "127.0.0.2";
const PAUSE = 20;
const CALM_SECONDS = 3;

const rows = [["attack", "sent KiB", "MiB", "p50 ms", "p99 ms", "asked", "refused", "verdict"]];
let calm, bearer;

/** The value below which so many of a list are. */
const percentile = (values, part) => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) * part)] ?? 0;

/** Starts others' questions (others.mjs); the function stops them and gives how long they waited and how many were refused. */
function askAlong() {
  const { hostname, port } = target;
  const workerData = { hostname, port, localAddress: OTHERS_ADDRESS, bearer, pause: PAUSE };
  const others = new Worker(new URL("others.mjs", import.meta.url), { workerData });
  const told = once(others, "message");
  told.catch(() => {}); // seen by who waits for it below
  return async () => {
    others.postMessage("stop");
    const [{ waited, failures }] = await told;
    const refused = [...failures.values()].reduce((sum, count) => sum + count, 0);
    return { asked: waited.length + refused, refused, failures, p50: percentile(waited, 0.5), p99: percentile(waited, 0.99) };
  };
}

/** What others wait when nobody attacks; measured anew each time, since other things run on the same machine. */
async function measureCalm() {
  // Another account than the attackers': accounts have shares too.
  const { accounts } = await (await fetch(new URL("/playground/config.json", endpoint))).json();
  bearer = `Bearer ${accounts[1].token}`;
  const stop = askAlong();
  await wait(CALM_SECONDS * 1000);
  calm = await stop();
  if (rows.length === 1) rows.push(["(nobody attacks)", 0, "0.0", calm.p50.toFixed(1), calm.p99.toFixed(1), calm.asked, calm.refused, "–"]);
}

/**
 * Runs an attack while others ask: `attack()` gives `{ sent, verdict }`, the bytes that it sent and what became of it.
 * Fails where it costs too much memory or has one of the others refused, and where it makes them wait each time that it is
 * tried.
 */
export async function underPressure(name, attack) {
  for (let tries = 1; ; tries++) {
    await measureCalm();
    const { others, risen } = await attackOnce(name, attack);
    assert.ok(risen < MOST_MEMORY, `${risen.toFixed(1)} MiB above idle, at most ${MOST_MEMORY}`);
    assert.equal(others.refused, 0, `others were refused: ${JSON.stringify([...others.failures])}`);
    const most = MOST_WAITING + 2 * calm.p99;
    if (others.p99 < most) return;
    assert.ok(tries < TRIES, `others waited ${others.p99.toFixed(1)} ms (p99), at most ${most.toFixed(1)}`);
  }
}

async function attackOnce(name, attack) {
  await forgetPeak();
  const idle = await memory("VmRSS");
  const stop = askAlong();
  let outcome = { sent: 0, verdict: "did not end" };
  let risen, others;
  try {
    outcome = await attack();
  } finally {
    risen = await peakAbove(idle);
    others = await stop();
    const { sent, verdict } = outcome;
    rows.push([name, (sent / 1024).toFixed(0), risen.toFixed(1), others.p50.toFixed(1), others.p99.toFixed(1), others.asked, others.refused, verdict]);
  }
  return { others, risen };
}

export function printPressure() {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  for (const row of rows) console.log(row.map((cell, column) => String(cell).padEnd(widths[column])).join("  ").trimEnd());
  const highest = (column) => Math.max(...rows.slice(2).map((row) => Number(row[column])));
  console.log(`${rows.length - 2} attacks · highest: ${highest(2)} MiB, p99 ${highest(4)} ms`);
}
