/** The real WhatsApp, by Baileys. */
import { downloadMediaMessage, makeCacheableSignalKeyStore, makeWASocket, proto, WAMessageStatus } from 'baileys';
import type { WAMessage, WAVersion } from 'baileys';
import type { Readable } from 'node:stream';
import type { Logger } from 'pino';
import { codeOf } from './socket.js';
import type { OpenSocket } from './socket.js';

type BaileysLogger = Parameters<typeof makeCacheableSignalKeyStore>[1] & object;

/** @param version of WhatsApp Web; null takes the one this Baileys was released with. */
export function baileys(version: WAVersion | null): OpenSocket {
  silenceConsole();
  return ({ auth, getMessage, retries, log }) => {
    const logger = discreet(log);
    const socket = makeWASocket({
      auth: { creds: auth.creds, keys: makeCacheableSignalKeyStore(auth.keys, logger) },
      logger,
      getMessage,
      msgRetryCounterCache: retries,
      // Else the telephone itself no longer rings, and "online" all day looks like no person.
      markOnlineOnConnect: false,
      syncFullHistory: false,
      shouldSyncHistoryMessage: () => false,
      emitOwnEvents: false,
      ...(version === null ? {} : { version }),
    });
    reportAcks(socket);
    return Object.assign(socket, { download: (message: WAMessage) => download(socket, message) });
  };
}

/**
 * A file that WhatsApp no longer has is asked of the telephone, once. Baileys 7.0.0-rc14 means to do so by itself, but looks for
 * the status where its own errors do not have it (`downloadMediaMessage` in Utils/messages.js).
 */
async function download(socket: ReturnType<typeof makeWASocket>, message: WAMessage): Promise<Readable> {
  try {
    return await downloadMediaMessage(message, 'stream', {});
  } catch (error) {
    if (![403, 404, 410].includes(codeOf(error) ?? 0)) throw error;
    return downloadMediaMessage(await socket.updateMediaMessage(message), 'stream', {});
  }
}

/**
 * Tell, as `messages.update`, that WhatsApp has a message. Baileys 7.0.0-rc14 looks at acks only for their errors
 * (`handleBadAck` in Socket/messages-recv.js), so that SERVER_ACK, our `sent`, would never come.
 */
function reportAcks({ ws, ev }: ReturnType<typeof makeWASocket>): void {
  ws.on('CB:ack,class:message', ({ attrs }: { attrs: Record<string, string> }) => {
    if (attrs.error || !attrs.id) return;
    const key: proto.IMessageKey = { remoteJid: attrs.from, fromMe: true, id: attrs.id };
    ev.emit('messages.update', [{ key, update: { status: WAMessageStatus.SERVER_ACK } }]);
  });
}

/** Baileys logs addresses, stanzas and keys: only the words of a warning or an error are passed on, and no numbers. */
function discreet(log: Logger): BaileysLogger {
  const words = (obj: unknown, msg?: string): string => (msg ?? String(obj)).replace(/\d{4,}/g, '#').slice(0, 200);
  const logger: BaileysLogger = {
    level: 'warn',
    child: () => logger,
    trace: () => {},
    debug: () => {},
    info: () => {},
    warn: (obj, msg) => log.warn({ of: 'baileys' }, words(obj, msg)),
    error: (obj, msg) => log.error({ of: 'baileys' }, words(obj, msg)),
  };
  return logger;
}

/** libsignal prints whole sessions, private keys and all, with console.info ("Closing session:", session_record.js). */
function silenceConsole(): void {
  for (const name of ['log', 'info', 'warn', 'error', 'debug'] as const) console[name] = () => {};
}

