// Builds the page and packs it for the server: dist/ holds each asset as brotli only, and a manifest of what they are.
// `--check` builds into a temporary folder and says whether the committed dist/ is what the sources give.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, brotliDecompressSync, constants } from "node:zlib";
import { build } from "vite";
import { config } from "../vite.config.mjs";
import { licences } from "./licences.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const DIST = join(ROOT, "dist");
const CONTENT_TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".ttf": "font/ttf",
  ".txt": "text/plain; charset=utf-8",
  ".woff": "font/woff",
  ".woff2": "font/woff2",
};

const work = mkdtempSync(join(tmpdir(), "xp-playground-"));
try {
  const assets = await bundle(join(work, "raw"));
  const entries = assets.map(describe);
  if (process.argv.includes("--check")) check(entries);
  else pack(assets, entries);
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** Vite's output plus the licences of what is in it, sorted by path. */
async function bundle(folder) {
  const modules = new Set();
  const { build: options, ...rest } = config(modules);
  await build({
    ...rest,
    root: ROOT,
    configFile: false,
    logLevel: "warn",
    build: { ...options, outDir: folder, emptyOutDir: true },
  });
  const assets = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((file) => ({ path: relative(folder, file), bytes: readFileSync(file) }));
  assets.push({ path: "LICENSES.txt", bytes: Buffer.from(licences(ROOT, modules)) });
  return assets.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function describe({ path, bytes }) {
  const contentType = CONTENT_TYPES[extname(path)];
  if (!contentType) throw new Error(`${path}: no content type known for it; add it to scripts/build.mjs`);
  return { path, contentType, sha256: sha256(bytes), bytes: bytes.length };
}

/** Writes dist/. An asset whose bytes are unchanged keeps its file, so that another brotli version makes no noise. */
function pack(assets, entries) {
  const kept = existsSync(DIST) ? readdirSync(DIST) : [];
  mkdirSync(DIST, { recursive: true });
  let total = 0;
  for (const [index, { path, bytes }] of assets.entries()) {
    const file = join(DIST, `${path}.br`);
    if (!holds(file, entries[index].sha256)) writeFileSync(file, compress(bytes));
    total += readFileSync(file).length;
  }
  const wanted = new Set([...assets.map(({ path }) => `${path}.br`), "manifest.json"]);
  for (const name of kept) if (!wanted.has(name)) rmSync(join(DIST, name));
  writeFileSync(join(DIST, "manifest.json"), manifest(entries));
  const raw = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  console.log(`${entries.length} assets, ${raw} bytes, ${total} bytes as brotli`);
}

/** Compares contents, not compressed bytes: those may differ between brotli versions. */
function check(entries) {
  const problems = entries
    .filter(({ path, sha256 }) => !holds(join(DIST, `${path}.br`), sha256))
    .map(({ path }) => `dist/${path}.br is missing or is not what the sources give`);
  const wanted = new Set([...entries.map(({ path }) => `${path}.br`), "manifest.json"]);
  const there = existsSync(DIST) ? readdirSync(DIST) : [];
  problems.push(...there.filter((name) => !wanted.has(name)).map((name) => `dist/${name} is not built any more`));
  const listed = join(DIST, "manifest.json");
  if (!existsSync(listed) || readFileSync(listed, "utf8") !== manifest(entries)) {
    problems.push("dist/manifest.json is not what the sources give");
  }
  for (const problem of problems) console.error(problem);
  if (problems.length) console.error("Run `npm run build` and commit dist/.");
  else console.log(`dist/ is what the sources give (${entries.length} assets)`);
  process.exitCode = problems.length ? 1 : 0;
}

function manifest(entries) {
  return `${JSON.stringify({ files: entries }, null, 2)}\n`;
}

function holds(file, digest) {
  return existsSync(file) && sha256(brotliDecompressSync(readFileSync(file))) === digest;
}

function compress(bytes) {
  return brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
}

function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}
