/** Server-sent events: call `onChange` for each one; the browser comes back by itself when the stream ends. */
import { useEffect, useRef } from "react";

export function useEvents(
  address: string | null,
  onChange: (told: Record<string, unknown>) => void,
  again: unknown = 0,
): void {
  const latest = useRef(onChange);
  latest.current = onChange;
  // `again` asks for a new stream
  useEffect(() => {
    if (address === null) return;
    const source = new EventSource(address);
    source.onmessage = (event) => latest.current(JSON.parse(event.data));
    source.addEventListener("end", () => source.close());
    return () => source.close();
  }, [address, again]);
}
