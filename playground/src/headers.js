// The text of the header editor, and the one entry in it that belongs to the account select. Pure: text in, text out.
import { parse } from "jsonc-parser";

const AUTHORIZATION = "Authorization";

/** The headers written in the editor; none where the text is empty or not an object. */
export function readHeaders(text) {
  const headers = parse(text ?? "");
  return headers && typeof headers === "object" && !Array.isArray(headers) ? normalHeaders(headers) : {};
}

/** Headers as they can be sent: values that are texts or numbers, and the token under one name, however it was written. */
export function normalHeaders(headers) {
  const sent = Object.entries(headers).filter(([, value]) => ["string", "number"].includes(typeof value));
  return Object.fromEntries(sent.map(([name, value]) => [isAuthorization(name) ? AUTHORIZATION : name, String(value)]));
}

export function isAuthorization(name) {
  return name.toLowerCase() === AUTHORIZATION.toLowerCase();
}

/** The same text with the account's token as Authorization; other headers stay. Without a token the entry goes. */
export function withToken(text, token) {
  const headers = readHeaders(text);
  delete headers[AUTHORIZATION];
  if (token) headers[AUTHORIZATION] = `Bearer ${token}`;
  return Object.keys(headers).length ? JSON.stringify(headers, null, 2) : "";
}
