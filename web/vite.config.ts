import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const here = (path: string) => decodeURIComponent(new URL(path, import.meta.url).pathname);

export default defineConfig({
  plugins: [react()],
  base: "/",
  // vtk.js reads XML with it in code that is never used here; in a browser bundle it fails when loaded.
  resolve: { alias: { xmlbuilder2: here("./stubs/xmlbuilder2.ts") } },
  worker: { format: "es" },
  build: {
    outDir: here("../src/wetread/service/static"),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // a data: address would have to be allowed by the content security policy
    chunkSizeWarningLimit: 6000,
    reportCompressedSize: false,
  },
});
