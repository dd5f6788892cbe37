import hooks from "eslint-plugin-react-hooks";
import { defineConfig } from "eslint/config";
import typescript from "typescript-eslint";

export default defineConfig(
  { ignores: ["node_modules/", "src/api/schema.d.ts"] },
  typescript.configs.strict,
  hooks.configs.flat["recommended-latest"],
  {
    rules: {
      complexity: ["error", 12],
      "max-lines": ["error", 400],
      "max-depth": ["error", 3],
      eqeqeq: ["error", "always", { null: "ignore" }],
      // Refs that hold the newest value of something are written while rendering, and read in events only.
      "react-hooks/refs": "off",
    },
  },
);
