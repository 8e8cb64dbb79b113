import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

/** The server of `cargo xtask run`. Through this page it has the page's own origin. */
const target = process.env.SIGNALBOX_URL ?? "http://127.0.0.1:8080";
const proxy = { "/ws": { target, ws: true } };

export default defineConfig({
  plugins: [react()],
  // The packages of this repository are linked, and have React for their own tests.
  resolve: { dedupe: ["react", "react-dom"] },
  server: { proxy },
  preview: { proxy },
});
