/** Encryption at rest, and files that are either wholly there or not at all. */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import path from 'node:path';

const FORMAT = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + NONCE_BYTES + TAG_BYTES;
const UNFINISHED = '.tmp';

/** The key in use: AES-256-GCM for contents, HMAC-SHA256 for the names of files that would give a person away. */
export class Vault {
  readonly #sealing: Buffer;
  readonly #naming: Buffer;

  /** @param key 32 bytes. */
  constructor(key: Buffer) {
    const derive = (use: string): Buffer => Buffer.from(hkdfSync('sha256', key, '', `replyline-gateway ${use}`, 32));
    this.#sealing = derive('sealing');
    this.#naming = derive('naming');
  }

  /** @param place where the content belongs; opened elsewhere it is refused, so that files cannot be swapped. */
  seal(plain: string | Buffer, place: string): Buffer {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#sealing, nonce).setAAD(Buffer.from(place));
    const content = Buffer.concat([cipher.update(plain as Buffer), cipher.final()]);
    return Buffer.concat([Buffer.from([FORMAT]), nonce, cipher.getAuthTag(), content]);
  }

  /** Throws where the content was sealed under another key or for another place, or was changed. */
  open(sealed: Buffer, place: string): Buffer {
    if (sealed.length < HEAD_BYTES || sealed[0] !== FORMAT) throw new Error(`${place} is not a sealed file`);
    const decipher = createDecipheriv('aes-256-gcm', this.#sealing, sealed.subarray(1, 1 + NONCE_BYTES));
    decipher.setAAD(Buffer.from(place)).setAuthTag(sealed.subarray(1 + NONCE_BYTES, HEAD_BYTES));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(HEAD_BYTES)), decipher.final()]);
    } catch {
      throw new Error(`${place} cannot be opened: another GATEWAY_KEY, or the file was changed`);
    }
  }

  /** A file name that says nothing of what it stands for: 40 hex characters. */
  name(...parts: string[]): string {
    return createHmac('sha256', this.#naming).update(parts.join('\0')).digest('hex').slice(0, 40);
  }
}

/** A folder (0700) of sealed files (0600). A write is on the disk when it returns: new file, fsync, rename, fsync. */
export class SealedFolder {
  /** @param scope what the contents are sealed for, beside their names: differs for each folder and session. */
  constructor(
    readonly vault: Vault,
    readonly path: string,
    private readonly scope: string,
  ) {
    fs.mkdirSync(path, { recursive: true, mode: 0o700 });
    for (const name of fs.readdirSync(path)) if (name.endsWith(UNFINISHED)) this.remove(name);
  }

  /** The names, in order. */
  names(): string[] {
    return fs.readdirSync(this.path).filter((name) => !name.endsWith(UNFINISHED)).sort();
  }

  has(name: string): boolean {
    return fs.existsSync(path.join(this.path, name));
  }

  /** When the file was last written, in Unix ms; 0 if there is none. */
  writtenAt(name: string): number {
    return fs.statSync(path.join(this.path, name), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  }

  /** Null if there is no such file. Throws if it cannot be opened. */
  read(name: string): Buffer | null {
    let sealed: Buffer;
    try {
      sealed = fs.readFileSync(path.join(this.path, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
    return this.vault.open(sealed, this.place(name));
  }

  write(name: string, plain: string): void {
    const { unfinished, finished } = this.paths(name);
    const file = fs.openSync(unfinished, 'wx', 0o600);
    try {
      fs.writeSync(file, this.vault.seal(plain, this.place(name)));
      fs.fsyncSync(file);
    } finally {
      fs.closeSync(file);
    }
    fs.renameSync(unfinished, finished);
    const folder = fs.openSync(this.path, 'r');
    fs.fsyncSync(folder);
    fs.closeSync(folder);
  }

  /** Like `write`, without holding up everything else: a pairing writes eight hundred keys at once. */
  async writeMany(contents: ReadonlyMap<string, string>): Promise<void> {
    await Promise.all(
      [...contents].map(async ([name, plain]) => {
        const { unfinished, finished } = this.paths(name);
        const sealed = this.vault.seal(plain, this.place(name));
        await fs.promises.writeFile(unfinished, sealed, { flag: 'wx', mode: 0o600, flush: true });
        await fs.promises.rename(unfinished, finished);
      }),
    );
    const folder = await fs.promises.open(this.path, 'r');
    await folder.sync().finally(() => folder.close());
  }

  remove(name: string): void {
    fs.rmSync(path.join(this.path, name), { force: true });
  }

  /** The folder itself stays. */
  empty(): void {
    for (const name of fs.readdirSync(this.path)) this.remove(name);
  }

  private place(name: string): string {
    return `${this.scope}/${name}`;
  }

  private paths(name: string): { unfinished: string; finished: string } {
    const finished = path.join(this.path, name);
    return { unfinished: `${finished}.${randomBytes(6).toString('hex')}${UNFINISHED}`, finished };
  }
}
