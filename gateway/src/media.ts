/**
 * Files that people sent: what WhatsApp wants to see to hand one over is kept for a week, sealed. The bytes stay with WhatsApp,
 * encrypted, until somebody asks for them: nothing of them is ever on this disk.
 */
import { Transform } from 'node:stream';
import type { Readable } from 'node:stream';
import { proto } from 'baileys';
import type { WAMessage } from 'baileys';
import { unwrap } from './content.js';
import { Refusal } from './refusal.js';
import type { SealedFolder } from './vault.js';

/** docs/qr-gateway.md, "Files". */
const KEPT_MS = 7 * 24 * 3_600_000;
const MAX_KEPT = 50_000;
const FIRST_BYTE_MS = 30_000;
const SILENCE_MS = 30_000;

const KINDS = [
  'imageMessage',
  'videoMessage',
  'ptvMessage',
  'audioMessage',
  'documentMessage',
  'stickerMessage',
] as const;

interface Kept {
  key: WAMessage['key'];
  /** The message in base64, with its file alone. */
  message: string;
}

export class Media {
  constructor(
    private readonly folder: SealedFolder,
    private readonly maxBytes: number,
  ) {}

  /** Remember the file of a message; on the disk when it returns. */
  keep({ key, message }: WAMessage): void {
    const file = fileIn(message);
    if (!key.id || file === null) return;
    const encoded = Buffer.from(proto.Message.encode(file).finish()).toString('base64');
    const kept: Kept = { key, message: encoded };
    this.folder.write(this.#name(key.id), JSON.stringify(kept));
  }

  /** Fetch the file of a message from WhatsApp, by `download`. Throws Refusal. */
  async open(id: string, download: (message: WAMessage) => Promise<Readable>): Promise<Readable> {
    const raw = this.folder.read(this.#name(id));
    if (raw === null) throw new Refusal('unknown_media', 'no such file is known, or no longer');
    const { key, message } = JSON.parse(raw.toString()) as Kept;
    const file = proto.Message.decode(Buffer.from(message, 'base64'));
    const size = sizeOf(file);
    if (size > this.maxBytes) throw new Refusal('too_large', `the file has ${size} bytes: at most ${this.maxBytes} are taken`);
    const source = await inTime(download({ key, message: file } as WAMessage));
    return this.#bounded(source);
  }

  /** Forget what came long ago, and the oldest of too many. */
  purge(): void {
    const ages = this.folder.names().map((name) => ({ name, at: this.folder.writtenAt(name) }));
    ages.sort((one, other) => other.at - one.at);
    for (const [number, { name, at }] of ages.entries()) {
      if (number >= MAX_KEPT || Date.now() - at > KEPT_MS) this.folder.remove(name);
    }
  }

  /** The size that the message names is the sender's word: what is longer is cut off, and so is a source that falls silent. */
  #bounded(source: Readable): Readable {
    let received = 0;
    let silence: NodeJS.Timeout | undefined;
    const wait = (): void => {
      clearTimeout(silence);
      silence = setTimeout(() => bounded.destroy(new Error('WhatsApp fell silent')), SILENCE_MS).unref();
    };
    const bounded = new Transform({
      transform: (chunk: Buffer, _, done) => {
        wait();
        received += chunk.length;
        if (received > this.maxBytes) done(new Error('the file is longer than it may be'));
        else done(null, chunk);
      },
    });
    bounded.once('close', () => {
      clearTimeout(silence);
      source.destroy();
    });
    source.once('error', (error) => bounded.destroy(error));
    wait();
    return source.pipe(bounded);
  }

  #name(id: string): string {
    return this.folder.vault.name('media', id);
  }
}

/** The file alone, without thumbnails and context; null if there is none, or if it is said to be outside WhatsApp. */
function fileIn(message: proto.IMessage | null | undefined): proto.IMessage | null {
  const { inner } = unwrap(message ?? {});
  for (const kind of KINDS) {
    const found = inner[kind];
    if (!found) continue;
    const { url, directPath, mediaKey, mimetype, fileLength, fileSha256, fileEncSha256 } = found;
    // Baileys joins host and path without looking at either: whoever writes to us must not choose whom this gateway calls.
    const isWhatsApps = isWhatsApp(url) && (!directPath || /^\/[^/\\@]/.test(directPath));
    if (!mediaKey || !isWhatsApps || (!url && !directPath)) return null;
    const file = { url, directPath, mediaKey, mimetype, fileLength, fileSha256, fileEncSha256 };
    return proto.Message.create({ [kind]: file });
  }
  return null;
}

function isWhatsApp(url: string | null | undefined): boolean {
  if (!url) return true;
  try {
    const { protocol, hostname, port, username } = new URL(url);
    return protocol === 'https:' && hostname.endsWith('.whatsapp.net') && port === '' && username === '';
  } catch {
    return false;
  }
}

function sizeOf(message: proto.IMessage): number {
  for (const kind of KINDS) if (message[kind]) return Number(message[kind]?.fileLength ?? 0);
  return 0;
}

async function inTime(source: Promise<Readable>): Promise<Readable> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Refusal('unavailable', 'WhatsApp did not hand the file over', 5000)), FIRST_BYTE_MS);
  });
  // Should it come after all, nobody reads it.
  source.then((stream) => stream.on('error', () => {})).catch(() => {});
  return Promise.race([source, late]).finally(() => clearTimeout(timer));
}
