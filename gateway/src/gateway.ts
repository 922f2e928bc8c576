/** The sessions of one data folder, as far as this gateway holds their leases. */
import * as fs from 'node:fs';
import path from 'node:path';
import type { Logger } from 'pino';
import { Lease } from './lease.js';
import { Refusal } from './refusal.js';
import { keepConfig, Session } from './session.js';
import type { SessionConfig } from './session.js';
import type { Settings } from './settings.js';
import type { OpenSocket } from './socket.js';
import { SealedFolder, Vault } from './vault.js';

/** After a session's id, so that no id (`..`, for one) can name another folder. */
const FOLDER = '.session';
const KEY_CHECK = 'key-check';

interface Owned {
  session: Session;
  lease: Lease;
}

export class Gateway {
  readonly #vault: Vault;
  readonly #sessions: string;
  readonly #leases: string;
  readonly #owned = new Map<string, Owned>();
  /** What changes a session goes one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>();
  #looking: NodeJS.Timeout | undefined;

  /** Throws where the data folder was written under another key. */
  constructor(
    private readonly settings: Settings,
    private readonly open: OpenSocket,
    private readonly log: Logger,
  ) {
    this.#vault = new Vault(settings.key);
    this.#sessions = path.join(settings.data, 'sessions');
    this.#leases = path.join(settings.data, 'leases');
    fs.mkdirSync(this.#sessions, { recursive: true, mode: 0o700 });
    const own = new SealedFolder(this.#vault, settings.data, 'gateway');
    if (own.read(KEY_CHECK) === null) own.write(KEY_CHECK, '');
  }

  /** Connect every session that no other gateway holds, and from then on those whose holder is gone. */
  async start(): Promise<void> {
    await this.#look();
    const again = (): void => {
      this.#looking = setTimeout(() => void this.#look().finally(again), this.settings.leaseMs / 4).unref();
    };
    again();
  }

  /** Close every connection and give the leases back. */
  async close(): Promise<void> {
    clearTimeout(this.#looking);
    await Promise.all([...this.#owned.keys()].map((id) => this.#giveUp(id)));
  }

  /** The session, if it is this gateway's or can be; else throws Refusal. */
  async find(id: string): Promise<Session> {
    const owned = this.#owned.get(id);
    if (owned?.lease.held) return owned.session;
    if (!this.#isKept(id)) throw new Refusal('unknown_session', 'there is no such session');
    return this.#inTurn(id, () => this.#own(id));
  }

  /** Make a session, or change its webhook. Throws Refusal. */
  async put(id: string, config: SessionConfig): Promise<Session> {
    return this.#inTurn(id, () => this.#own(id, config));
  }

  /** Change a session while nobody else does. Throws Refusal. */
  async change<T>(id: string, what: (session: Session) => T | Promise<T>): Promise<T> {
    if (!this.#isKept(id)) throw new Refusal('unknown_session', 'there is no such session');
    return this.#inTurn(id, async () => what(await this.#own(id)));
  }

  /** Forget a session with all its data. Throws Refusal. */
  async remove(id: string): Promise<void> {
    await this.change(id, async (session) => {
      await session.forget();
      fs.rmSync(this.#folder(id), { recursive: true, force: true });
      await this.#giveUp(id);
    });
  }

  /** The session under its lease; with a config it may be a new one. */
  async #own(id: string, config?: SessionConfig): Promise<Session> {
    const owned = this.#owned.get(id);
    if (owned?.lease.held) {
      if (config) owned.session.configure(config);
      return owned.session;
    }
    if (owned) await this.#giveUp(id);
    const lease = await Lease.take(this.#leases, id, this.settings.leaseMs, () => {
      this.log.error({ session: id }, 'the lease is lost');
      void this.#giveUp(id);
    });
    if (lease === null) throw new Refusal('not_owner', 'another gateway holds this session', this.settings.leaseMs);
    try {
      if (!config && !this.#isKept(id)) throw new Refusal('unknown_session', 'there is no such session');
      const folder = new SealedFolder(this.#vault, this.#folder(id), id);
      if (config) keepConfig(folder, config);
      const session = new Session(id, folder, lease, this.open, this.settings, this.log.child({ session: id }));
      this.#owned.set(id, { session, lease });
      session.start();
      return session;
    } catch (error) {
      await lease.release();
      throw error;
    }
  }

  async #giveUp(id: string): Promise<void> {
    const owned = this.#owned.get(id);
    if (!owned) return;
    this.#owned.delete(id);
    owned.session.close();
    await owned.lease.release();
  }

  async #look(): Promise<void> {
    const folders = fs.readdirSync(this.#sessions).filter((name) => name.endsWith(FOLDER));
    const ids = folders.map((name) => name.slice(0, -FOLDER.length));
    const others = ids.filter((id) => !this.#owned.has(id) && this.#isKept(id));
    await Promise.all(
      others.map((id) =>
        this.find(id).catch((error: Error) => {
          if (error instanceof Refusal) return;
          this.log.error({ session: id, reason: error.message }, 'a session cannot be used');
        }),
      ),
    );
  }

  #isKept(id: string): boolean {
    return fs.existsSync(path.join(this.#folder(id), 'config'));
  }

  #folder(id: string): string {
    return path.join(this.#sessions, `${id}${FOLDER}`);
  }

  async #inTurn<T>(id: string, act: () => Promise<T>): Promise<T> {
    const mine = (this.#turns.get(id) ?? Promise.resolve()).then(act);
    const settled = mine.catch(() => {});
    this.#turns.set(id, settled);
    void settled.then(() => {
      if (this.#turns.get(id) === settled) this.#turns.delete(id);
    });
    return mine;
  }
}
