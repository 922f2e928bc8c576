/** Waiting between attempts. */

const FIRST_MS = 500;
const LONGEST_MS = 15_000;

/** Doubles from half a second to 15 s, spread out so that a thousand pages do not all come back in the same moment. */
export function backoff(failures: number, random = Math.random): number {
  const full = Math.min(LONGEST_MS, FIRST_MS * 2 ** (failures + 1));
  return full * (0.5 + random() / 2);
}

export interface Pause {
  /** `isFirm`: the server has said how long, and nothing makes it shorter. */
  wait(ms: number, isFirm?: boolean): Promise<void>;
  /** Ends the wait, if there is one: the network is back, the tab is seen again, or everything stops. */
  wake(): void;
}

export function createPause(): Pause {
  let wake = (): void => {};
  return {
    wait: (ms, isFirm) =>
      new Promise((resolve) => {
        // A timer of 25 days or more would fire at once.
        const timer = setTimeout(resolve, Math.min(ms, 36e5));
        if (isFirm) return;
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      }),
    wake: () => wake(),
  };
}
