/** WhatsApp as the gateway sees it: the little of Baileys' socket that is used, in Baileys' own types. */
import type { AuthenticationState, BaileysEventMap, CacheStore, WAMessage, WASocket, WAMessageKey, proto } from 'baileys';
import type { Readable } from 'node:stream';
import type { Logger } from 'pino';

type Used =
  | 'fetchAccountReachoutTimelock'
  | 'onWhatsApp'
  | 'readMessages'
  | 'requestPairingCode'
  | 'sendMessage'
  | 'sendPresenceUpdate';

export interface WhatsAppSocket extends Pick<WASocket, Used> {
  /** The number logged in; undefined before that. */
  readonly user: WASocket['user'];
  readonly ev: {
    on<E extends keyof BaileysEventMap>(event: E, listener: (data: BaileysEventMap[E]) => void): void;
  };
  /** The file of a message, decrypted. */
  download(message: WAMessage): Promise<Readable>;
  /** Unlink this device on WhatsApp's side. */
  logout(): Promise<void>;
  /** Close the connection; a `connection.update` follows. */
  end(error: Error | undefined): unknown;
}

export interface SocketOptions {
  session: string;
  auth: AuthenticationState;
  /** A message of ours, for a telephone that asks for it again. */
  getMessage: (key: WAMessageKey) => Promise<proto.IMessage | undefined>;
  /** How often each message was asked for: must outlive the connection. */
  retries: CacheStore;
  log: Logger;
}

/** Connect; what becomes of it comes as events. */
export type OpenSocket = (options: SocketOptions) => WhatsAppSocket;

/** The status code in an error of Baileys: of a lost connection, or (`data`) of WhatsApp's answer; else null. */
export function codeOf(error: unknown): number | null {
  const { output, data } = (error ?? {}) as { output?: { statusCode?: unknown }; data?: unknown };
  if (typeof data === 'number' && Number.isInteger(data)) return data;
  return typeof output?.statusCode === 'number' ? output.statusCode : null;
}
