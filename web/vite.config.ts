import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const here = (path: string) => decodeURIComponent(new URL(path, import.meta.url).pathname);

/** Let the browser fetch and compile the viewer while the page begins; it is run when a study is opened. */
const compileViewerEarly = (): Plugin => ({
  name: "compile-viewer-early",
  transformIndexHtml: {
    order: "post",
    handler: (_, { bundle }) =>
      Object.keys(bundle ?? {})
        .filter((name) => /\/(engine|reading|study)-[^/]*\.js$/.test(name))
        .map((name) => ({
          tag: "link",
          attrs: { rel: "modulepreload", href: `/${name}`, fetchpriority: "low" },
          injectTo: "head" as const,
        })),
  },
});

export default defineConfig({
  plugins: [react(), compileViewerEarly()],
  base: "/",
  resolve: {
    alias: [
      // vtk.js reads XML with it in code that is never used here; in a browser bundle it fails when loaded.
      { find: "xmlbuilder2", replacement: here("./stubs/xmlbuilder2.ts") },
      // A second renderer and the colour tables of vtk.js, which nothing here asks for: half a second of the first image.
      { find: /^\.\.\/WebGPU\/Profiles\/\w+\.js$/, replacement: here("./stubs/nothing.ts") },
      { find: /^\.\/ColorMaps\.json\.js$/, replacement: here("./stubs/no-colours.ts") },
    ],
  },
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
