// The four editions as one page; each comes as files of its own.
import { defineConfig } from "vite";

export default defineConfig({ base: "./", build: { target: "es2022" } });
