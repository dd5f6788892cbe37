/**
 * Where a pixel of the original image lies on the screen. Decided here: image coordinates are those of the service,
 * (column, row) with 0 at the left and upper edge of the first pixel, so the centre of that pixel is (0.5, 0.5).
 */
export type Point = readonly [number, number];

/** x' = a x + c y + e, y' = b x + d y + f: pixels of the image to pixels of the screen. */
export interface Matrix {
  a: number;
  b: number;
  c: number;
  d: number;
  e: number;
  f: number;
}

/** The matrix that takes (0, 0), (1, 0) and (0, 1) to three points of the screen. */
export function matrixOf(origin: Point, right: Point, down: Point): Matrix {
  return {
    a: right[0] - origin[0],
    b: right[1] - origin[1],
    c: down[0] - origin[0],
    d: down[1] - origin[1],
    e: origin[0],
    f: origin[1],
  };
}

export function toScreen(m: Matrix, [x, y]: Point): Point {
  return [m.a * x + m.c * y + m.e, m.b * x + m.d * y + m.f];
}

export function toImage(m: Matrix, [x, y]: Point): Point {
  const determinant = m.a * m.d - m.b * m.c;
  const u = x - m.e;
  const v = y - m.f;
  return [(m.d * u - m.c * v) / determinant, (m.a * v - m.b * u) / determinant];
}

export function sameMatrix(one: Matrix | null, other: Matrix): boolean {
  return (
    one !== null && (["a", "b", "c", "d", "e", "f"] as const).every((k) => Math.abs(one[k] - other[k]) < 1e-4)
  );
}

/** Screen pixels for one image pixel, along a row. */
export function scaleOf(m: Matrix): number {
  return Math.hypot(m.a, m.b);
}

/** The corners of a rectangle of the image, on the screen. */
export function cornersOf(m: Matrix, box: { x: number; y: number; width: number; height: number }): Point[] {
  const right = box.x + box.width;
  const low = box.y + box.height;
  return (
    [
      [box.x, box.y],
      [right, box.y],
      [right, low],
      [box.x, low],
    ] as Point[]
  ).map((one) => toScreen(m, one));
}

export interface Length {
  value: number;
  unit: "mm" | "px";
}

/** Length between two points; `spacing` is (row, column) in mm, null where the file states none. */
export function lengthOf(points: readonly Point[], spacing: readonly [number, number] | null): Length {
  const [from, to] = points;
  if (!from || !to) return { value: 0, unit: spacing ? "mm" : "px" };
  const [row, column] = spacing ?? [1, 1];
  const value = Math.hypot((to[0] - from[0]) * column, (to[1] - from[1]) * row);
  return { value, unit: spacing ? "mm" : "px" };
}

/** Angle in degrees at the middle one of three points. */
export function angleOf(points: readonly Point[], spacing: readonly [number, number] | null): number {
  const [a, b, c] = points;
  if (!a || !b || !c) return 0;
  const [row, column] = spacing ?? [1, 1];
  const first = [(a[0] - b[0]) * column, (a[1] - b[1]) * row] as const;
  const second = [(c[0] - b[0]) * column, (c[1] - b[1]) * row] as const;
  const cross = first[0] * second[1] - first[1] * second[0];
  const dot = first[0] * second[0] + first[1] * second[1];
  return (Math.atan2(Math.abs(cross), dot) * 180) / Math.PI;
}

const BARS_MM = [100, 50, 20, 10, 5, 2, 1];

/** The longest scale bar that is at most `longest` screen pixels; null where nothing fits. */
export function scaleBar(
  m: Matrix,
  columnSpacing: number,
  longest: number,
): { mm: number; pixels: number } | null {
  const perMm = scaleOf(m) / columnSpacing;
  const mm = BARS_MM.find((one) => one * perMm <= longest);
  return mm === undefined ? null : { mm, pixels: mm * perMm };
}

const OPPOSITE: Record<string, string> = { L: "R", R: "L", A: "P", P: "A", H: "F", F: "H" };

/** The letter of the opposite direction, e.g. `LA` -> `RP`. */
export function opposite(letters: string): string {
  return [...letters].map((one) => OPPOSITE[one] ?? one).join("");
}

/**
 * Patient Orientation (0020,0020): which way the rows and the columns run. From the element itself, else from the
 * direction cosines of Image Orientation (Patient) (0020,0037) (PS3.3 C.7.6.1.1.1); null where the file says nothing.
 */
export function orientationOf(patient: unknown, cosines: unknown): { row: string; column: string } | null {
  const [row, column] = Array.isArray(patient) ? patient.map(String) : [];
  if (row && column) return { row, column };
  const numbers = Array.isArray(cosines) ? cosines.map(Number) : [];
  if (numbers.length !== 6 || numbers.some((one) => !Number.isFinite(one))) return null;
  return { row: letterOf(numbers.slice(0, 3)), column: letterOf(numbers.slice(3)) };
}

function letterOf(direction: number[]): string {
  const names = [
    ["R", "L"],
    ["A", "P"],
    ["F", "H"],
  ] as const;
  const axis = direction.reduce(
    (best, one, i) => (Math.abs(one) > Math.abs(direction[best] ?? 0) ? i : best),
    0,
  );
  return names[axis]?.[(direction[axis] ?? 0) > 0 ? 1 : 0] ?? "";
}

/** Letters for the four edges of the screen, however the image is turned. */
export function edgeLetters(m: Matrix, orientation: { row: string; column: string }) {
  const towards = (x: number, y: number): string => {
    const [u, v] = toImage({ ...m, e: 0, f: 0 }, [x, y]);
    const along = Math.abs(u) >= Math.abs(v) ? [orientation.row, u] : [orientation.column, v];
    const letters = along[0] as string;
    return (along[1] as number) > 0 ? letters : opposite(letters);
  };
  return { right: towards(1, 0), left: towards(-1, 0), down: towards(0, 1), up: towards(0, -1) };
}
