/** How fast one number may write: what looks like a machine is banned (contracts §3.7). */
import { setTimeout as delay } from 'node:timers/promises';

const JITTER = 0.2;
/** How late, in ms, a caller may come for the slot it was given. */
const KEPT_FOR_MS = 15_000;
/** Timers and networks are a little early at times. */
const EARLY_MS = 20;
const FIRST_PAUSE_MS = 60_000;
const LONGEST_PAUSE_MS = 3_600_000;

interface Intervals {
  sendIntervalMs: number;
  chatIntervalMs: number;
}

/**
 * Slots of one number. A caller that must wait is given a slot of its own and told when it is, so that a hundred that
 * wait are told a hundred times, and each gets in when it comes back.
 */
export class Pacer {
  /** The key of who waits, and when it may begin, in ms of the monotonic clock. */
  readonly #slots = new Map<string, number>();
  /** When messages are written, as far as it is planned, in order. */
  #planned: number[] = [];
  /** The last of them to each person. */
  readonly #plannedTo = new Map<string, number>();
  #written = -Infinity;
  readonly #writtenTo = new Map<string, number>();
  #turns: Promise<unknown> = Promise.resolve();
  #pausedUntil = -Infinity;
  #pauseMs = 0;

  constructor(private readonly intervals: Intervals) {}

  /**
   * Ask to write to `chat` after having typed for `typingMs`; 0: go on now, else the ms after which to ask again.
   * @param key whose slot it is: the Idempotency-Key.
   */
  claim(key: string, chat: string, typingMs: number): number {
    const now = performance.now();
    this.#forget(now);
    const given = this.#slots.get(key);
    if (given !== undefined) {
      if (given > now + EARLY_MS) return given - now;
      this.#slots.delete(key);
      return 0;
    }
    const next = (this.#plannedTo.get(chat) ?? -Infinity) + Math.max(0, this.intervals.chatIntervalMs - typingMs);
    const write = this.#plan(Math.max(now, this.#pausedUntil, next) + typingMs);
    this.#plannedTo.set(chat, write);
    const start = write - typingMs;
    if (start <= now + EARLY_MS) return 0;
    this.#slots.set(key, start);
    return start - now;
  }

  /** Write, one message at a time and no closer to the last than the least interval, even if a caller came late. */
  async turn<T>(chat: string, stop: AbortSignal, write: () => Promise<T>): Promise<T> {
    const { sendIntervalMs, chatIntervalMs } = this.intervals;
    const mine = this.#turns.then(async () => {
      const free = Math.max(
        this.#written + sendIntervalMs * (1 - JITTER),
        (this.#writtenTo.get(chat) ?? -Infinity) + chatIntervalMs * (1 - JITTER),
      );
      const waitMs = free - performance.now();
      if (waitMs > 0) await delay(waitMs, undefined, { signal: stop });
      this.#written = performance.now();
      this.#writtenTo.set(chat, this.#written);
      return write();
    });
    this.#turns = mine.catch(() => {});
    return mine;
  }

  /** WhatsApp said rate-overlimit: for how long, in ms, nothing goes: a minute, doubled if it says so again soon. */
  pause(): number {
    const now = performance.now();
    const isAgain = now - this.#pausedUntil < LONGEST_PAUSE_MS;
    // Several messages may be refused at once; they are one warning.
    if (now >= this.#pausedUntil) {
      this.#pauseMs = isAgain ? Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS) : FIRST_PAUSE_MS;
    }
    this.#pausedUntil = now + this.#pauseMs;
    this.#planned = [];
    this.#plannedTo.clear();
    this.#slots.clear();
    return this.#pauseMs;
  }

  /** Plan a write for the first time from `earliest` on that keeps its distance from all others. */
  #plan(earliest: number): number {
    const gap = this.intervals.sendIntervalMs * (1 - JITTER + 2 * JITTER * Math.random());
    let write = earliest;
    for (const other of this.#planned) {
      if (write + gap <= other) break;
      write = Math.max(write, other + gap);
    }
    this.#planned = [...this.#planned, write].sort((one, other) => one - other);
    return write;
  }

  #forget(now: number): void {
    const past = now - this.intervals.sendIntervalMs * (1 + JITTER);
    this.#planned = this.#planned.filter((write) => write > past);
    for (const [key, start] of this.#slots) if (start < now - KEPT_FOR_MS) this.#slots.delete(key);
    for (const times of [this.#plannedTo, this.#writtenTo]) {
      for (const [chat, at] of times) if (at < now - this.intervals.chatIntervalMs) times.delete(chat);
    }
  }
}
