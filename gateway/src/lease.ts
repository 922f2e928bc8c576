/**
 * One owner per session: two sockets on one login corrupt its keys ("Bad MAC") and throw each other out (440).
 *
 * The lock is proper-lockfile's: a folder made with mkdir, whose mtime its holder renews. A lock that can be taken over
 * from a holder that only slept is not enough to write keys under, so three things are added: the holder knows by its
 * own monotonic clock when its lease may have run out; its name beside the lock says who took it last; and who takes a
 * stale lease waits and looks again, as two may have found it stale at the same moment.
 */
import { randomUUID } from 'node:crypto';
import * as fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import lockfile from 'proper-lockfile';

/** The share of the lease for which another gateway that found it stale too may be on its way to take it. */
const SETTLE = 1 / 4;
/** The share of the lease after which its holder no longer trusts it: the rest is for a write that has begun. */
const TRUSTED = 0.8;

type Done = (error: NodeJS.ErrnoException | null) => void;

export class Lease {
  readonly #owner = randomUUID();
  #renewedAt = performance.now();
  #taken = false;
  #lost = false;
  #releasing = false;
  #unlock: () => Promise<void> = async () => {};
  #watch: NodeJS.Timeout | undefined;

  private constructor(
    private readonly file: string,
    private readonly staleMs: number,
    private readonly onLost: () => void,
  ) {}

  /**
   * Take the lease `name` in a folder, for as long as this process lives and renews it.
   *
   * Null where another holds it. The hosts' clocks must agree to well within `staleMs`.
   * @param onLost called once if the lease is lost; not after `release`.
   */
  static async take(folder: string, name: string, staleMs: number, onLost: () => void): Promise<Lease | null> {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    const lease = new Lease(path.join(folder, name), staleMs, onLost);
    return (await lease.#take()) ? lease : null;
  }

  /** Whether it is certain that nobody else holds it: asked before each write of keys and each message sent. */
  get held(): boolean {
    if (this.#lost || performance.now() - this.#renewedAt > this.staleMs * TRUSTED) return false;
    return this.#isOwner();
  }

  async release(): Promise<void> {
    this.#releasing = this.held;
    this.#end();
    // While the lock folder stands nobody else can take the lease, so the name beside it goes first.
    if (this.#releasing) fs.rmSync(this.#ownerFile, { force: true });
    await this.#unlock().catch(() => {});
  }

  async #take(): Promise<boolean> {
    const lockfilePath = `${this.file}.lock`;
    const wasThere = fs.existsSync(lockfilePath);
    try {
      this.#unlock = await lockfile.lock(this.file, {
        lockfilePath,
        realpath: false,
        stale: this.staleMs,
        update: this.staleMs / 3,
        fs: this.#watchedFs(),
        onCompromised: () => this.#lose(),
      });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ELOCKED') return false;
      throw error;
    }
    this.#taken = true;
    fs.writeFileSync(`${this.#ownerFile}.${this.#owner}`, this.#owner, { mode: 0o600 });
    fs.renameSync(`${this.#ownerFile}.${this.#owner}`, this.#ownerFile);
    if (wasThere) await delay(this.staleMs * SETTLE);
    if (!this.held) {
      this.#end();
      await this.#unlock().catch(() => {});
      return false;
    }
    this.#watch = setInterval(() => {
      if (!this.held) this.#lose();
    }, this.staleMs / 10).unref();
    return true;
  }

  /** The file system as proper-lockfile sees it: renewals are noticed, and another's lock is not removed. */
  #watchedFs(): object {
    const mayRemove = (): boolean => !this.#taken || this.#releasing || this.#isOwner();
    return {
      ...fs,
      utimes: (file: string, accessed: Date, changed: Date, done: Done): void => {
        const at = performance.now();
        fs.utimes(file, accessed, changed, (error) => {
          if (!error) this.#renewedAt = at;
          done(error);
        });
      },
      rmdir: (file: string, done: Done): void => (mayRemove() ? fs.rmdir(file, done) : done(null)),
      rmdirSync: (file: string): void => {
        if (mayRemove()) fs.rmdirSync(file);
      },
    };
  }

  get #ownerFile(): string {
    return `${this.file}.owner`;
  }

  #isOwner(): boolean {
    try {
      return fs.readFileSync(this.#ownerFile, 'utf8') === this.#owner;
    } catch {
      return false;
    }
  }

  #lose(): void {
    if (this.#lost) return;
    this.#end();
    this.onLost();
  }

  #end(): void {
    this.#lost = true;
    clearInterval(this.#watch);
  }
}
