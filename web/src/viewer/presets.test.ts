import { expect, it } from "vitest";
import { presetsFor, quantiles } from "./presets";

it("takes quantiles from the values themselves", () => {
  const values = Uint16Array.from({ length: 101 }, (_, i) => 100 - i);
  expect(quantiles(values, [0, 0.5, 1])).toEqual([0, 50, 100]);
});

it("offers windows in Hounsfield units for CT alone", () => {
  const file = { lower: 0, upper: 4095 };
  expect(presetsFor("CT", file, [0, 1]).find((one) => one.name === "presetLung")?.range).toEqual({
    lower: -1350,
    upper: 150,
  });
  const film = presetsFor("CR", file, [5, 5, 5]);
  expect(film[0]?.range).toBe(file);
  expect(film.every((one) => one.range.upper > one.range.lower)).toBe(true);
});
