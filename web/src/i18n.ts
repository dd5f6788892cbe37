/** Words and numbers in the language of the person; all words are in `texts.ts`. */
import { usePreferences } from "./preferences";
import { texts } from "./texts";

export type TextKey = keyof typeof texts;
export type Values = Record<string, string | number>;

const COLUMN = { en: 0, es: 1 } as const;

export function translate(language: "en" | "es", key: TextKey, values: Values = {}): string {
  return texts[key][COLUMN[language]].replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ""));
}

export interface Words {
  (key: TextKey, values?: Values): string;
  language: "en" | "es";
}

export function useWords(): Words {
  const { language } = usePreferences();
  const words = (key: TextKey, values?: Values) => translate(language, key, values);
  return Object.assign(words, { language });
}

/** A number with a fixed count of digits. */
export function fixed(value: number, digits: number, language: "en" | "es"): string {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function percent(value: number, language: "en" | "es", digits = 0): string {
  return value.toLocaleString(language, {
    style: "percent",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** How long ago, in the largest unit that fits: 40 s, 12 min, 3 h, 5 d. */
export function age(seconds: number): string {
  const past = Math.max(0, seconds);
  if (past < 60) return `${Math.floor(past)} s`;
  if (past < 3600) return `${Math.floor(past / 60)} min`;
  if (past < 172800) return `${Math.floor(past / 3600)} h`;
  return `${Math.floor(past / 86400)} d`;
}

export function moment(seconds: number, language: "en" | "es"): string {
  return new Date(seconds * 1000).toLocaleString(language === "en" ? "en-GB" : "es", {
    dateStyle: "medium",
    timeStyle: "short",
  });
}

/** DA of DICOM (PS3.5 6.2), YYYYMMDD, as YYYY-MM-DD. */
export function dicomDate(text: string | null): string {
  return text && /^\d{8}$/.test(text)
    ? `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}`
    : (text ?? "");
}

/** PN of DICOM (PS3.5 6.2.1), family^given, as it is read. */
export function personName(text: string | null): string {
  const [family = "", given = ""] = (text ?? "").split("=")[0]?.split("^") ?? [];
  return [family, given].filter(Boolean).join(", ");
}

/** DA of DICOM as days since 1970; null for none. */
function dayOf(text: string | null): number | null {
  const parts = text?.match(/^(\d{4})(\d{2})(\d{2})$/);
  return parts ? Date.UTC(Number(parts[1]), Number(parts[2]) - 1, Number(parts[3])) / 86_400_000 : null;
}

/** How long one study lies before another, in words; empty where a date is missing. */
export function interval(other: string | null, now: string | null, words: Words): string {
  const [from, to] = [dayOf(other), dayOf(now)];
  if (from === null || to === null) return "";
  const days = Math.abs(to - from);
  if (days === 0) return words("sameDay");
  const length =
    days < 61 ? words(days === 1 ? "oneDay" : "someDays", { n: days }) : yearsOrMonths(days, words);
  return words(to > from ? "earlier" : "later", { length });
}

function yearsOrMonths(days: number, words: Words): string {
  return days < 730
    ? words("someMonths", { n: Math.round(days / 30.44) })
    : words("someYears", { n: fixed(days / 365.25, 1, words.language) });
}
