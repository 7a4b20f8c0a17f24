// An operation as text to take elsewhere: a command, code, its document's id, a link; and the link read back. A link has the
// operation and its variables in its fragment, which is sent to no server, and never a header or a token. Pure.

import { isAuthorization } from "./headers.js";

const JSON_TYPE = { "content-type": "application/json" };
const READ_EVENTS = `// Server-sent events: lines "event: next" and "data: {…}", and an empty line behind each.
for await (const text of response.body.pipeThrough(new TextDecoderStream())) console.log(text);`;

/**
 * A command for a shell; without secrets it reads `$TOKEN`, as the server prints it, and a variable named after the header for each
 * other one. What has more than one answer is asked for as server-sent events.
 */
export function asCurl({ url, request, headers, isStream }, withToken) {
  const lines = [`curl ${isStream ? "-sN" : "-s"} ${quoted(url)}`];
  for (const [name, value] of Object.entries({ ...headers, ...typesOf(isStream) })) {
    const shown = isSecret(name) && !withToken ? `"${name}: ${masked(name, (variable) => `$${variable}`)}"` : quoted(`${name}: ${value}`);
    lines.push(`-H ${shown}`);
  }
  lines.push(`-d ${quoted(JSON.stringify(request))}`);
  return lines.join(" \\\n  ");
}

/** JavaScript for browsers and Node.js. */
export function asFetch({ url, request, headers, isStream }) {
  const entries = Object.entries({ ...headers, ...typesOf(isStream) }).map(([name, value]) => {
    const shown = isSecret(name) ? `\`${masked(name, (variable) => `\${${variable.toLowerCase()}}`)}\`` : JSON.stringify(value);
    return `    ${JSON.stringify(name)}: ${shown},`;
  });
  const variables = JSON.stringify(request.variables ?? {}, null, 2).replaceAll("\n", "\n    ");
  return `const query = ${template(request.query)};

const response = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: {
${entries.join("\n")}
  },
  body: JSON.stringify({
    query,
    variables: ${variables},${request.operationName ? `\n    operationName: ${JSON.stringify(request.operationName)},` : ""}
  }),
});
${isStream ? READ_EVENTS : `const ${Array.isArray(request.variables) ? "answers" : "{ data, errors }"} = await response.json();`}
`;
}

/** What a copy does not tell unless it is asked to. */
function isSecret(name) {
  return /authorization|cookie|password|secret|api-?key|(auth|access|csrf)-?token/i.test(name);
}

/** What stands in the place of a secret: `read` writes how a variable is read. */
function masked(name, read) {
  return isAuthorization(name) ? `Bearer ${read("TOKEN")}` : read(name.toUpperCase().replace(/[^A-Z0-9]/g, "_"));
}

function typesOf(isStream) {
  return isStream ? { ...JSON_TYPE, accept: "text/event-stream" } : JSON_TYPE;
}

/** The id by which a published document is asked for: `sha256:` and the hash of its text. */
export async function documentId({ request }) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(request.query));
  return `sha256:${[...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** A link to this page that opens the operation, and does not run it. */
export function shareLink({ request }) {
  const { query, variables, operationName } = request;
  const fragment = new URLSearchParams({ query });
  if (variables) fragment.set("variables", JSON.stringify(variables));
  if (operationName) fragment.set("operationName", operationName);
  return `${window.location.origin}${window.location.pathname}#${fragment}`;
}

/** The operation in the fragment of a link, if there is one. */
export function readLink(hash) {
  const fragment = new URLSearchParams(hash.replace(/^#/, ""));
  const query = fragment.get("query");
  if (!query) return null;
  const operationName = fragment.get("operationName") ?? undefined;
  try {
    const variables = fragment.get("variables");
    return { query, operationName, variables: variables ? JSON.stringify(JSON.parse(variables), null, 2) : "" };
  } catch {
    return { query, operationName, variables: "" };
  }
}

/** In single quotes, for a shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** As a template literal. */
function template(text) {
  return `\`${text.replace(/[`\\]|\$\{/g, "\\$&")}\``;
}
