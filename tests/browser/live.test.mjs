// What becomes of a subscription whose connection is lost, in a real browser: the log says since when and why, which attempt to
// connect again comes next, and that what happened meanwhile follows. Not here: events as such.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  accounts,
  choose,
  findings,
  holds,
  isReady,
  launch,
  open,
  picture,
  post,
  repeatUntil,
  run,
} from "./page.mjs";

let browser, page, token;
/** The sockets of the page that lead to the server; further ones are closed at once where `isAway`. */
const sockets = [];
let isAway = false;

before(async () => {
  token = await newcomer();
  browser = await launch();
  page = await open(browser);
  await page.routeWebSocket(/\/graphql$/, (socket) => {
    if (isAway) return void socket.close({ code: 1013, reason: "The server has too much to do" });
    sockets.push(socket);
    socket.connectToServer();
  });
  await page.reload();
  await isReady(page);
});
after(() => browser?.close());

/** The token of an account of its own: an older position than an account's last is no event. */
async function newcomer() {
  const [{ token: admin }] = await accounts();
  const [email, password] = [`live-${crypto.randomUUID()}@example.com`, "a long sentence to remember"];
  const make = "mutation($input: CreateUserInput!) { createUser(input: $input) { userErrors { message } } }";
  const made = await post(make, { input: { email, password, displayName: "Live", role: "COLLECTOR" } }, admin);
  assert.deepEqual(made.data?.createUser.userErrors, [], JSON.stringify(made));
  const signIn = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
  return (await post(signIn, { input: { email, password } })).data.signIn.accessToken;
}

const log = () => page.getByRole("region", { name: "Events" });
const state = (text) => log().getByRole("status").getByText(text).waitFor();

let second = 0;
async function record() {
  second += 1;
  const point = { timestamp: new Date(Date.now() + 60_000 + second * 1000).toISOString(), latitude: second, longitude: 8 };
  const query = "mutation($point: LocationPointInput!) { recordLocations(input: { points: [$point] }) { acceptedCount } }";
  assert.equal((await post(query, { point }, token)).data.recordLocations.acceptedCount, 1);
}

/** Records positions until the log shows this, and the last of them has come. */
async function recordUntil(shown) {
  await repeatUntil(page, shown, record);
  await holds(page, "response.json", `"latitude": ${second},`);
}

/** Presses the button until the connection stands: an attempt that is under way has none. */
async function connectNow() {
  const listening = log().getByRole("status").getByText("Listening");
  await repeatUntil(page, listening, () =>
    log().getByRole("button", { name: "Connect now" }).click({ timeout: 1_000 }).catch(() => {}),
  );
}

const entries = () => log().getByRole("listitem").allInnerTexts();
const event = (number) => log().locator("summary").getByText(`#${number}`, { exact: true });

test("a lost connection comes back, and the log tells when it was lost, why, and for how long", async () => {
  await choose(page, "Live: positions");
  await page.getByRole("status").getByText("Press the run button to listen").waitFor();
  await run(page);
  await state("Listening");
  await recordUntil(event(1));
  const before = (await entries()).length;

  isAway = true;
  await sockets.at(-1).close({ code: 1012, reason: "What was told may not be true any more: read and subscribe again" });
  await state("Connection lost: closed with 1012 What was told may not be true");
  // Each attempt fails, and the next one is told with the time until then.
  await state(/closed with 1013/);
  await log().getByText(/^Attempt [2-8] of 8 in \d+ s$/).waitFor();
  await log().getByRole("button", { name: "Connect now" }).waitFor();
  await picture(page, "events-reconnecting");
  assert.deepEqual(await findings(page), []);
  await record();

  isAway = false;
  await connectNow();
  // What was recorded meanwhile comes by itself.
  await event(before + 1).waitFor();
  await holds(page, "response.json", `"latitude": ${second},`);
  const told = await entries();
  const lost = told.findIndex((text) => /Connection lost: closed with 1012/.test(text));
  assert.equal(lost, told.length - before - 1, `behind it is what came before: ${JSON.stringify(told)}`);
  assert.match(told[lost - 1], /Connected again after [\d.]+ m?s\. What happened meanwhile follows\./);
  assert.ok(told.every((text, index) => index === lost || index === lost - 1 || text.startsWith("#")), JSON.stringify(told));
  assert.equal(await log().getByRole("button", { name: "Connect now" }).count(), 0);
  await picture(page, "events-reconnected");
});

test("while the log is held, the connection is still told, and nothing else moves", async () => {
  const before = (await entries()).length;
  await log().getByRole("button", { name: "Pause" }).click();
  await sockets.at(-1).close({ code: 1001, reason: "The server stops" });
  await state("Connection lost: closed with 1001 The server stops");
  await state("Listening");
  await recordUntil(log().getByRole("status").getByText(/^[1-9]\d* waiting$/));
  assert.equal((await entries()).length, before);
  await log().getByRole("button", { name: "Pause" }).click();
  await log().getByRole("listitem").getByText("Connection lost: closed with 1001 The server stops").waitFor();
  assert.ok((await entries()).length >= before + 3, "the loss, the return, an event");
});

test("stopped while it is lost, it does not come back", async () => {
  isAway = true;
  await sockets.at(-1).close({ code: 1001 });
  await state("Connection lost");
  const count = sockets.length;
  await run(page);
  await state("Ended");
  isAway = false;
  await page.waitForTimeout(1_500);
  assert.equal(sockets.length, count);
  assert.deepEqual(page.complaints.filter((text) => !text.includes("WebSocket")), []);
});
