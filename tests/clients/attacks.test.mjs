// Requests made to bring a server down (attacks.mjs): each is sent once by itself, then by 16 senders at once; it is
// refused with its code (or answered), and leaves the server alive and small. The server runs under a bound on its memory.
// Prints a table: bytes sent, status, code, how far its memory rose at most, the time alone and the slowest of 16.
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { families } from "./attacks.mjs";
import { forgetPeak, MOST_MEMORY, peakAbove, printTable, memory, send } from "./attacked.mjs";
import { token } from "./xp.mjs";

const SENDERS = 16;
const ROUNDS = 2;
const MOST_ANSWER = 8 << 10;
/** What an error must not tell. */
const SECRETS = /panicked|\.rs:|SELECT |sqlx|sqlite|postgres|async_graphql|stack/i;

const rows = [["attack", "bytes", "status", "code", "MiB", "alone ms", "slowest of 16, ms"]];
let bearer;

before(async () => {
  bearer = `Bearer ${await token()}`;
  // Whatever the server sets up once does not belong to an attack.
  const warmUp = Array.from({ length: SENDERS }, () => send({ body: Buffer.from('{"query":"{ __schema { types { name } } }"}') }));
  await Promise.all(warmUp);
});
after(() => printTable(rows));

for (const [family, attacks] of Object.entries(families)) {
  suite(family, () => {
    let before;
    for (const [name, attack, codes, most = MOST_MEMORY] of attacks()) {
      const title = name.startsWith("the same") ? `${before}; ${name}` : name;
      before = title;
      test(title, () => run(title, attack, codes.split(" "), most));
    }
  });
}

async function run(name, attack, codes, most) {
  await forgetPeak();
  const idle = await memory("VmRSS");
  const seen = new Set();
  let bytes;
  const ask = async () => {
    const body = typeof attack.body === "function" ? attack.body() : attack.body;
    const headers = { ...(!attack.anonymous && { authorization: bearer }), ...attack.headers };
    const started = performance.now();
    // The server may close the connection as soon as it has seen too much: that is a refusal too.
    const { status, text } = await send({ ...attack, headers, body }).catch(() => ({ status: 413, text: "" }));
    const took = performance.now() - started;
    bytes = (body?.length ?? 0) + (attack.path?.length ?? 0);
    const answer = text ? JSON.parse(text) : { errors: [{ extensions: { code: "PAYLOAD_TOO_LARGE" } }] };
    const code = answer.errors?.[0].extensions.code ?? "ok";
    assert.ok(codes.includes(code), `${status} ${text.slice(0, 300)}`);
    assert.ok(status < 500 || code === "OVERLOADED", `${status} ${text.slice(0, 300)}`);
    if (code !== "ok") {
      assert.ok(text.length <= MOST_ANSWER, `${text.length} bytes: ${text.slice(0, 200)}`);
      assert.doesNotMatch(text, SECRETS);
      if (text) assert.ok(answer.errors.every((error) => error.extensions.requestId), text.slice(0, 300));
    }
    seen.add(`${status} ${code}`);
    return took;
  };
  const alone = await ask();
  const sender = async () => {
    let slowest = 0;
    for (let round = 0; round < ROUNDS; round++) slowest = Math.max(slowest, await ask());
    return slowest;
  };
  const slowest = Math.max(...(await Promise.all(Array.from({ length: SENDERS }, sender))));
  const risen = await peakAbove(idle);
  const [status, code] = [...seen][0].split(" ");
  rows.push([name.slice(0, 60), bytes, status, code, risen.toFixed(1), alone.toFixed(0), slowest.toFixed(0)]);
  assert.ok(risen < most, `${risen.toFixed(1)} MiB`);
  assert.equal((await send({ method: "GET", path: "/livez" })).status, 200);
}
