// An operation as text to take elsewhere: a command, code, its document's id, a link; and the link read back. A link has the
// operation and its variables in its fragment, which is sent to no server, and never a header or a token. Pure.

const JSON_TYPE = { "content-type": "application/json" };

/** A command for a shell; without the token it reads `$TOKEN`, as the server prints it. */
export function asCurl({ url, request, headers }, withToken) {
  const lines = [`curl -s ${quoted(url)}`];
  for (const [name, value] of Object.entries({ ...headers, ...JSON_TYPE })) {
    const isSecret = name.toLowerCase() === "authorization" && !withToken;
    lines.push(`-H ${isSecret ? `"${name}: Bearer $TOKEN"` : quoted(`${name}: ${value}`)}`);
  }
  lines.push(`-d ${quoted(JSON.stringify(request))}`);
  return lines.join(" \\\n  ");
}

/** JavaScript for browsers and Node.js. */
export function asFetch({ url, request, headers }) {
  const entries = Object.entries({ ...headers, ...JSON_TYPE }).map(([name, value]) => {
    const isSecret = name.toLowerCase() === "authorization";
    return `    ${JSON.stringify(name)}: ${isSecret ? "`Bearer ${token}`" : JSON.stringify(value)},`;
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
const ${Array.isArray(request.variables) ? "answers" : "{ data, errors }"} = await response.json();
`;
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
