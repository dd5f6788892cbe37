import { describe, expect, it } from "vitest";
import {
  angleOf,
  cornersOf,
  edgeLetters,
  lengthOf,
  matrixOf,
  orientationOf,
  scaleBar,
  toImage,
  toScreen,
} from "./geometry";

// an image turned by 90 degrees clockwise, two screen pixels for one of the image
const turned = matrixOf([100, 0], [100, 2], [98, 0]);

describe("geometry", () => {
  it("takes image pixels to the screen and back", () => {
    expect(toScreen(turned, [10, 20])).toEqual([60, 20]);
    expect(toImage(turned, [60, 20])).toEqual([10, 20]);
    expect(cornersOf(turned, { x: 0, y: 0, width: 10, height: 5 })).toEqual([
      [100, 0],
      [100, 20],
      [90, 20],
      [90, 0],
    ]);
  });

  it("measures with the spacing of rows and of columns, and in pixels without", () => {
    // 3-4-5: 30 columns of 0.1 mm and 8 rows of 0.5 mm
    expect(
      lengthOf(
        [
          [0, 0],
          [30, 8],
        ],
        [0.5, 0.1],
      ),
    ).toEqual({ value: 5, unit: "mm" });
    expect(
      lengthOf(
        [
          [0, 0],
          [30, 40],
        ],
        null,
      ),
    ).toEqual({ value: 50, unit: "px" });
    expect(
      angleOf(
        [
          [10, 0],
          [0, 0],
          [0, 10],
        ],
        null,
      ),
    ).toBeCloseTo(90);
    expect(
      angleOf(
        [
          [10, 0],
          [0, 0],
          [10, 10],
        ],
        [1, 2],
      ),
    ).toBeCloseTo((Math.atan2(1, 2) * 180) / Math.PI);
  });

  it("says which side of the patient is where, however the image is turned", () => {
    const upright = matrixOf([0, 0], [1, 0], [0, 1]);
    const film = { row: "L", column: "F" };
    expect(edgeLetters(upright, film)).toEqual({ right: "L", left: "R", down: "F", up: "H" });
    expect(edgeLetters(turned, film)).toEqual({ right: "H", left: "F", down: "L", up: "R" });
    expect(orientationOf(["L", "F"], undefined)).toEqual(film);
    expect(orientationOf(undefined, [1, 0, 0, 0, 1, 0])).toEqual({ row: "L", column: "P" });
    expect(orientationOf(undefined, [0, 1, 0, 0, 0, -1])).toEqual({ row: "P", column: "F" });
    expect(orientationOf("", [1, 0])).toBeNull();
  });

  it("draws the longest scale bar that fits", () => {
    // 2 screen pixels for 0.5 mm: 4 for a millimetre
    expect(scaleBar(turned, 0.5, 180)).toEqual({ mm: 20, pixels: 80 });
    expect(scaleBar(turned, 0.5, 3)).toBeNull();
  });
});
