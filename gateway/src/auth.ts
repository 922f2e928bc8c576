/** The login of one session: Baileys' authentication state, encrypted, each key in a file of its own. */
import { BufferJSON, initAuthCreds, proto } from 'baileys';
import type { AuthenticationCreds, SignalDataSet, SignalDataTypeMap, SignalKeyStore } from 'baileys';
import type { SealedFolder } from './vault.js';

const CREDS = 'creds';

/**
 * Keys change with every message and must be on the disk before the next one (contracts §3.6): `set` resolves when they
 * are, and Baileys waits for it. Every write asks first whether the session is still ours.
 */
export class AuthStore {
  readonly creds: AuthenticationCreds;
  readonly keys: SignalKeyStore;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;

  /** Loads the login; one whose pairing was never finished is thrown away, as Baileys would log in with it and fail. */
  constructor(
    private readonly folder: SealedFolder,
    private readonly mayWrite: () => boolean,
  ) {
    const kept = folder.read(CREDS);
    const creds = kept === null ? null : (JSON.parse(kept.toString(), BufferJSON.reviver) as AuthenticationCreds);
    if (creds !== null && !isPaired(creds)) this.erase();
    this.creds = creds !== null && isPaired(creds) ? creds : initAuthCreds();
    this.keys = { get: (type, ids) => this.#get(type, ids), set: (data) => this.#set(data) };
  }

  /** Whether there is a login that WhatsApp has confirmed. */
  get paired(): boolean {
    return isPaired(this.creds);
  }

  /** On the disk when it returns. Throws where the session is no longer ours. */
  saveCreds(): void {
    this.#fence();
    this.folder.write(CREDS, JSON.stringify(this.creds, BufferJSON.replacer));
  }

  /** Refuse every later write: the socket that may still make one is no longer in use. */
  close(): void {
    this.#closed = true;
  }

  erase(): void {
    this.folder.empty();
  }

  async #get<T extends keyof SignalDataTypeMap>(type: T, ids: string[]): Promise<Record<string, SignalDataTypeMap[T]>> {
    await this.#writing.catch(() => {});
    const found: Record<string, SignalDataTypeMap[T]> = {};
    for (const id of ids) {
      const kept = this.folder.read(this.folder.vault.name(type, id));
      if (kept === null) continue;
      const value: unknown = JSON.parse(kept.toString(), BufferJSON.reviver);
      const isSyncKey = type === 'app-state-sync-key';
      found[id] = (
        isSyncKey ? proto.Message.AppStateSyncKeyData.fromObject(value as Record<string, unknown>) : value
      ) as SignalDataTypeMap[T];
    }
    return found;
  }

  async #set(data: SignalDataSet): Promise<void> {
    const written = this.#writing.catch(() => {}).then(() => this.#write(data));
    this.#writing = written;
    await written;
  }

  async #write(data: SignalDataSet): Promise<void> {
    const contents = new Map<string, string>();
    const gone: string[] = [];
    for (const [type, values] of Object.entries(data)) {
      for (const [id, value] of Object.entries(values ?? {})) {
        const name = this.folder.vault.name(type, id);
        if (value) contents.set(name, JSON.stringify(value, BufferJSON.replacer));
        else gone.push(name);
      }
    }
    this.#fence();
    await this.folder.writeMany(contents);
    for (const name of gone) this.folder.remove(name);
  }

  #fence(): void {
    if (this.#closed || !this.mayWrite()) throw new Error('the login is no longer ours to write');
  }
}

/** `registered` is only set by pairing codes; `account` comes with WhatsApp's own word that the pairing succeeded. */
function isPaired(creds: AuthenticationCreds): boolean {
  return creds.account !== undefined && creds.account !== null && creds.me !== undefined;
}
