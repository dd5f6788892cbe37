/** Feedback by week, Monday to Sunday in UTC, without gaps. */
export interface Week {
  start: string;
  accept: number;
  other: number;
}

const WEEK_S = 7 * 86_400;
const MONDAY_S = 4 * 86_400; // 1970-01-05 was a Monday

export function weeksOf(entries: readonly { created: number; action: string }[]): Week[] {
  if (entries.length === 0) return [];
  const numbers = entries.map((one) => Math.floor((one.created - MONDAY_S) / WEEK_S));
  const first = Math.min(...numbers);
  const weeks = Array.from({ length: Math.max(...numbers) - first + 1 }, (_, number) => ({
    start: new Date(((first + number) * WEEK_S + MONDAY_S) * 1000).toISOString().slice(0, 10),
    accept: 0,
    other: 0,
  }));
  entries.forEach((one, index) => {
    const week = weeks[(numbers[index] ?? first) - first];
    if (week) week[one.action === "accept" ? "accept" : "other"] += 1;
  });
  return weeks;
}
