import { expect, it, vi } from "vitest";

vi.stubGlobal("navigator", { language: "en" });
const { age, dicomDate, personName, translate } = await import("./i18n");
const { texts } = await import("./texts");

it("has the same places for values in both languages", () => {
  for (const [key, [english, spanish]] of Object.entries(texts)) {
    const places = (text: string) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();
    expect(places(spanish), key).toEqual(places(english));
  }
});

it("fills values in and writes dates, names and ages as people read them", () => {
  expect(translate("es", "studiesCount", { n: 3 })).toBe("3 estudios");
  expect(dicomDate("20261121")).toBe("2026-11-21");
  expect(dicomDate("soon")).toBe("soon");
  expect(personName("Doe^Jane^^Dr=ideographic")).toBe("Doe, Jane");
  expect([59, 60, 7200, 172_800].map(age)).toEqual(["59 s", "1 min", "2 h", "2 d"]);
});
