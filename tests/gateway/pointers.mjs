// Two neighbours that only point at our objects: one by `id`, at objects of every type, the other at accounts by
// e-mail. What a gateway makes of such a reference must be what `_entities` answers directly.
import { parse } from "graphql";
import { serve } from "./neighbour.mjs";
import { TYPES } from "./types.mjs";

const LINK = 'extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key"])';

/** The neighbours' names with their schemas. */
export const pointerSdls = {
  ids: sdl("byId", "id", "ID!", TYPES),
  emails: sdl("byEmail", "email", "String", ["User"]),
};

function sdl(root, key, type, types) {
  const fields = types.map((name) => `${name}: ${name}`).join(" ");
  const stubs = types.map((name) => `type ${name} @key(fields: "${key}", resolvable: false) { ${key}: ${type} }`);
  return [
    LINK,
    `type Query { ${root}(keys: [String!]!): [${root}Pointer!]! }`,
    `type ${root}Pointer { ${fields} }`,
    ...stubs,
  ].join("\n");
}

/** @returns {Promise<{urls: Record<string, string>, close: () => void}>} */
export async function startPointers() {
  const point = (key, types) => Object.fromEntries(types.map((name) => [name, (value) => ({ [key]: value })]));
  const [ids, emails] = await Promise.all([
    serve(parse(pointerSdls.ids), { Query: { byId: (_, { keys }) => keys }, byIdPointer: point("id", TYPES) }),
    serve(parse(pointerSdls.emails), { Query: { byEmail: (_, { keys }) => keys }, byEmailPointer: point("email", ["User"]) }),
  ]);
  return {
    urls: { ids: ids.url, emails: emails.url },
    close() {
      ids.close();
      emails.close();
    },
  };
}
