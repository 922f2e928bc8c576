/**
 * Messages until the server has them. They are kept under one key that all tabs of the site share: every step reads it
 * afresh and writes it back without a pause in between, so that no tab undoes what another did.
 */
import { parseJson } from './json';
import type { Storage } from './storage';
import type { Pending } from './conversation';

export const OUTBOX_LIMIT = 50;
const NAME = 'outbox';

export interface OutboxItem extends Pending {
  /** The conversation of the known user who wrote it; null if nobody had said who it was. Another user must not send it. */
  owner: string | null;
}

export interface Outbox {
  all(): OutboxItem[];
  /** False if it is full. */
  add(item: OutboxItem): boolean;
  /** The first that is to be sent. */
  next(): OutboxItem | undefined;
  change(clientId: string, change: Partial<OutboxItem>): void;
  remove(clientId: string): void;
  /** Drops what was written in the conversations of other known users; true if there was any. */
  dropOfOthers(conversation: string): boolean;
  clear(): void;
}

export function createOutbox(storage: Storage): Outbox {
  const all = (): OutboxItem[] => parseJson(storage.get(NAME), []);
  const write = (items: OutboxItem[]): void => storage.set(NAME, items.length ? JSON.stringify(items) : null);
  return {
    all,
    add(item) {
      const items = all();
      if (items.length >= OUTBOX_LIMIT) return false;
      write([...items, item]);
      return true;
    },
    next: () => all().find((item) => item.state !== 'refused'),
    change: (clientId, change) => write(all().map((item) => (item.client_id === clientId ? { ...item, ...change } : item))),
    remove: (clientId) => write(all().filter((item) => item.client_id !== clientId)),
    dropOfOthers(conversation) {
      const items = all();
      const rest = items.filter((item) => item.owner === null || item.owner === conversation);
      write(rest);
      return rest.length < items.length;
    },
    clear: () => write([]),
  };
}
