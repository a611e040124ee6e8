import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// One script and one style sheet with fixed names: `orchestra/server/studio_files.py` also puts them into exported pages.
export default defineConfig({
  base: "./",
  plugins: [react()],
  build: {
    outDir: "../orchestra/server/studio",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1000,
    rollupOptions: {
      output: { entryFileNames: "studio.js", assetFileNames: "studio.[ext]", codeSplitting: false },
    },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8100" } },
});
