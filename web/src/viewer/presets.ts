/** Windows to choose from: by modality in Hounsfield units for CT, else by the values of the image itself. */
import type { TextKey } from "../i18n";

export interface Range {
  lower: number;
  upper: number;
}

export interface Preset {
  name: TextKey;
  range: Range;
}

/** Values of the image at given shares of its pixels, from a sample of at most 20,000 pixels. */
export function quantiles(values: ArrayLike<number>, shares: readonly number[]): number[] {
  const step = Math.max(1, Math.floor(values.length / 20_000));
  const sample: number[] = [];
  for (let i = 0; i < values.length; i += step) sample.push(values[i] as number);
  sample.sort((one, other) => one - other);
  return shares.map((share) => sample[Math.round(share * (sample.length - 1))] ?? 0);
}

const ct = (centre: number, width: number): Range => ({
  lower: centre - width / 2,
  upper: centre + width / 2,
});

/** `file`: the window that the file states; `values`: stored values after the modality LUT. */
export function presetsFor(modality: string, file: Range, values: ArrayLike<number>): Preset[] {
  const first: Preset = { name: "presetFile", range: file };
  if (modality === "CT") {
    return [
      first,
      { name: "presetLung", range: ct(-600, 1500) },
      { name: "presetSoft", range: ct(40, 400) },
      { name: "presetBone", range: ct(400, 1800) },
      { name: "presetBrain", range: ct(40, 80) },
    ];
  }
  const [least = 0, low = 0, middle = 0, most = 1, top = 1] = quantiles(values, [0.005, 0.15, 0.5, 0.995, 1]);
  const bottom = quantiles(values, [0])[0] ?? 0;
  return [
    first,
    { name: "presetFull", range: apart(bottom, top) },
    { name: "presetRobust", range: apart(least, most) },
    { name: "presetDark", range: apart(least, middle + (most - middle) * 0.25) },
    { name: "presetBright", range: apart(low + (middle - low) * 0.5, most) },
  ];
}

function apart(lower: number, upper: number): Range {
  return { lower, upper: upper > lower ? upper : lower + 1 };
}
