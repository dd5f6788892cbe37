/** Images that are fetched before the viewer is there to ask for them. */

const begun = new Map<string, Promise<ArrayBuffer>>();
const MOST = 2;

/** Begin to fetch an image; once. */
export function beginImage(address: string): void {
  if (begun.has(address) || begun.size >= MOST) return;
  const coming = fetch(address).then((answer) =>
    answer.ok ? answer.arrayBuffer() : Promise.reject(new Error(`HTTP ${answer.status}`)),
  );
  coming.catch(() => undefined); // the viewer asks again, and says what is wrong
  begun.set(address, coming);
}

/** The image of that address, if it was begun; it is not kept. */
export function takeImage(address: string): Promise<ArrayBuffer> | undefined {
  const coming = begun.get(address);
  begun.delete(address);
  return coming;
}

/** Forget what nobody took. */
export function forgetImages(): void {
  begun.clear();
}
