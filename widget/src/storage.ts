/** What outlives the page. Where localStorage is shut off or full (private windows), it lasts as long as the page does. */

export interface Storage {
  get(name: string): string | null;
  set(name: string, value: string | null): void;
  /** The full key of a name, for comparing with storage events. */
  key(name: string): string;
}

type Backing = Pick<globalThis.Storage, 'getItem' | 'setItem' | 'removeItem'>;

export function createStorage(siteKey: string, open: () => Backing = () => localStorage): Storage {
  const memory = new Map<string, string>();
  const key = (name: string): string => `replyline:${siteKey}:${name}`;
  return {
    key,
    get(name) {
      const kept = memory.get(name);
      if (kept !== undefined) return kept;
      try {
        return open().getItem(key(name));
      } catch {
        return null;
      }
    },
    set(name, value) {
      memory.delete(name);
      try {
        if (value === null) open().removeItem(key(name));
        else open().setItem(key(name), value);
      } catch {
        if (value !== null) memory.set(name, value);
      }
    },
  };
}
