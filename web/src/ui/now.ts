/** The time, looked at now and then: what a page says of times stays pure between two looks. */
import { useEffect, useState } from "react";

/** Seconds since 1970. */
export function useNow(everyMs = 15_000): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
