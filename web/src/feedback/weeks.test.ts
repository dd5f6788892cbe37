import { expect, it } from "vitest";
import { weeksOf } from "./weeks";

const at = (day: string) => Date.parse(`${day}T12:00:00Z`) / 1000;

it("counts by week from Monday to Sunday and leaves no week out", () => {
  const entries = [
    { created: at("2026-11-22"), action: "accept" }, // a Sunday
    { created: at("2026-11-16"), action: "reject" }, // the Monday before
    { created: at("2026-11-30"), action: "accept" },
  ];
  expect(weeksOf(entries)).toEqual([
    { start: "2026-11-16", accept: 1, other: 1 },
    { start: "2026-11-23", accept: 0, other: 0 },
    { start: "2026-11-30", accept: 1, other: 0 },
  ]);
  expect(weeksOf([])).toEqual([]);
});
