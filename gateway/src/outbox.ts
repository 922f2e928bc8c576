/** Events on their way to the webhook: on disk before anything else happens, posted one at a time and in order. */
import { createHmac, randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { SealedFolder } from './vault.js';

export type EventType = 'message' | 'status' | 'session';

/** docs/qr-gateway.md, "Events". */
const LONGEST_WAIT_MS = 5 * 60_000;
const KEPT_MS = 24 * 3_600_000;
const REFUSED = new Set([400, 413, 422]);
const REFUSALS = 5;
/** More events than this are not kept: the oldest go first. Some 100 MB. */
const MAX_WAITING = 100_000;
/** Those put aside are for a person to look at, and not for ever. */
const REJECTED_KEPT_MS = 7 * 24 * 3_600_000;

export interface Webhook {
  url: string;
  secret: string;
}

interface Timing {
  webhookTimeoutMs: number;
  retryFirstMs: number;
}

export class Outbox {
  #names: string[];
  #last: number;
  #refusals = 0;
  #wake: () => void = () => {};
  readonly #stop = new AbortController();

  /** @param webhook where to post at this moment: it may be changed while events wait. */
  constructor(
    private readonly session: string,
    private readonly folder: SealedFolder,
    private readonly rejected: SealedFolder,
    private readonly webhook: () => Webhook,
    private readonly timing: Timing,
    private readonly log: Logger,
  ) {
    this.#names = folder.names();
    this.#last = Number(this.#names.at(-1)?.split('-')[0] ?? 0);
  }

  get waiting(): number {
    return this.#names.length;
  }

  /** On the disk when it returns. @param id the same for the same event, so that a receiver can tell a repeat. */
  add(type: EventType, id: string, data: object): void {
    // The end keeps a gateway that lost its lease this moment from writing over an event of its successor.
    const name = `${String(++this.#last).padStart(15, '0')}-${randomBytes(4).toString('hex')}`;
    const event = { id: `evt_${id}`, type, session: this.session, ts: Date.now() / 1000, data };
    this.folder.write(name, JSON.stringify(event));
    this.#names.push(name);
    const tooMany = this.#names.length > MAX_WAITING ? this.#names[0] : undefined;
    if (tooMany !== undefined) this.#drop(tooMany, 'too many events wait');
    this.#wake();
  }

  /** Post what waits, from now on until `stop`. */
  start(): void {
    void this.#run();
  }

  /** Try again now: the webhook was changed. */
  poke(): void {
    this.#wake();
  }

  stop(): void {
    this.#stop.abort();
    this.#wake();
  }

  /** Forget what was put aside long ago. */
  purge(): void {
    for (const name of this.rejected.names()) {
      if (Date.now() - this.rejected.writtenAt(name) > REJECTED_KEPT_MS) this.rejected.remove(name);
    }
  }

  async #run(): Promise<void> {
    let waitMs = 0;
    while (!this.#stop.signal.aborted) {
      const name = this.#names[0];
      if (name === undefined) {
        await this.#sleep(null);
        continue;
      }
      const isDone = await this.#deliver(name).catch((error: Error) => {
        this.log.error({ reason: error.message }, 'the outbox cannot be used');
        return false;
      });
      if (isDone) {
        waitMs = 0;
        continue;
      }
      waitMs = waitMs === 0 ? this.timing.retryFirstMs : Math.min(waitMs * 2, LONGEST_WAIT_MS);
      if (await this.#sleep(waitMs)) waitMs = 0;
    }
  }

  /** Whether the event is done with. */
  async #deliver(name: string): Promise<boolean> {
    const body = this.#read(name);
    if (body === null) return this.#drop(name, 'it cannot be read');
    const status = await this.#post(body);
    if (this.#stop.signal.aborted) return false;
    if (status >= 200 && status < 300) return this.#done(name);
    this.#refusals = REFUSED.has(status) ? this.#refusals + 1 : this.#refusals;
    if (this.#refusals >= REFUSALS) {
      this.log.error({ status }, 'an event was refused and is put aside');
      this.rejected.write(name, body);
      return this.#done(name);
    }
    this.log.warn({ status }, 'an event was not taken and is told again'); // 0: there was no answer
    const { ts } = JSON.parse(body) as { ts: number };
    return Date.now() - ts * 1000 > KEPT_MS ? this.#drop(name, 'nobody took it for 24 hours') : false;
  }

  #read(name: string): string | null {
    try {
      return this.folder.read(name)?.toString() ?? null;
    } catch {
      return null;
    }
  }

  /** The answer's status; 0 where there was none. A redirect is not followed: the event is for one receiver. */
  async #post(body: string): Promise<number> {
    const { url, secret } = this.webhook();
    const stamp = String(Math.floor(Date.now() / 1000));
    const signature = createHmac('sha256', secret).update(`${stamp}.${body}`).digest('hex');
    const headers = {
      'content-type': 'application/json',
      'x-gateway-timestamp': stamp,
      'x-gateway-signature': `v1=${signature}`,
    };
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(this.timing.webhookTimeoutMs)]);
    try {
      const answer = await fetch(url, { method: 'POST', body, headers, redirect: 'manual', signal });
      await answer.body?.cancel();
      return answer.status;
    } catch {
      return 0;
    }
  }

  #done(name: string): true {
    this.folder.remove(name);
    this.#names = this.#names.filter((other) => other !== name);
    this.#refusals = 0;
    return true;
  }

  #drop(name: string, why: string): true {
    this.log.error({ why }, 'an event is lost');
    return this.#done(name);
  }

  /** Until something happens or the time (ms) is over; whether something happened. */
  async #sleep(ms: number | null): Promise<boolean> {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    if (this.#stop.signal.aborted) return true;
    return delay(ms ?? 2 ** 31 - 1, undefined, { signal: woken.signal }).then(
      () => false,
      () => true,
    );
  }
}
