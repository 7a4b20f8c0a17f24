// The four apps as pages of one site.
import { defineConfig } from "vite";

const APPS = ["apollo", "urql", "relay", "codegen-fetch"];

export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    rolldownOptions: { input: Object.fromEntries(APPS.map((app) => [app, `${app}/index.html`])) },
  },
});
