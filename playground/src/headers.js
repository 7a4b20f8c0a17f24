// The text of the header editor, and the one entry in it that belongs to the account select. Pure: text in, text out.
import { parse } from "jsonc-parser";

/** The headers written in the editor; none where the text is empty or not an object. */
export function readHeaders(text) {
  const headers = parse(text ?? "");
  return headers && typeof headers === "object" && !Array.isArray(headers) ? headers : {};
}

/** The same text with the account's token as Authorization; other headers stay. Without a token the entry goes. */
export function withToken(text, token) {
  const headers = readHeaders(text);
  const key = Object.keys(headers).find((name) => name.toLowerCase() === "authorization") ?? "Authorization";
  delete headers[key];
  if (token) headers[key] = `Bearer ${token}`;
  return Object.keys(headers).length ? JSON.stringify(headers, null, 2) : "";
}
