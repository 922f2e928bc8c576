/** What the environment says, read once. */
import type { WAVersion } from 'baileys';

export interface Settings {
  host: string;
  /** 0 to 65535; 0 takes a free one. */
  port: number;
  /** The folder that holds everything; several gateways may share it. */
  data: string;
  /** 32 bytes: what is kept on disk is encrypted under it. */
  key: Buffer;
  /** What callers say after `Bearer `; at least 16 characters. */
  token: string;
  /** The version of WhatsApp Web to claim; null takes the one Baileys was released with. */
  waVersion: WAVersion | null;
  socket: 'baileys' | 'scripted';
  /** Where the scripted WhatsApp writes what it saw; null: nowhere. */
  scriptLog: string | null;
  /** Between two messages of one number, in ms, give or take 20 %; 0: none. */
  sendIntervalMs: number;
  /** Between two messages to one person, in ms; 0: none. */
  chatIntervalMs: number;
  /** Messages of one number in a UTC day; 0: as many as one likes. */
  dailyCap: number;
  /** How old, in seconds, a message may be that came while the session was offline. */
  backlogS: number;
  /** After how long, in ms, a silent gateway's sessions are taken over; at least 2000 (proper-lockfile's least). */
  leaseMs: number;
  /** The largest file that is fetched or sent, in bytes. */
  maxMediaBytes: number;
  /** Whether a link of a file may lead to a private address. */
  allowPrivateLinks: boolean;
  webhookTimeoutMs: number;
  /** The wait, in ms, before an event is posted a second time; doubled from then on. */
  retryFirstMs: number;
}

/** The environment cannot be used; the message names every variable that is wrong, and no value of a secret one. */
export class SettingsError extends Error {}

/** Read the settings. Throws SettingsError. */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  const wrong: string[] = [];
  const text = (name: string, otherwise: string): string => env[name]?.trim() || otherwise;
  const whole = (name: string, otherwise: number, least: number, most: number): number => {
    const given = env[name]?.trim();
    if (!given) return otherwise;
    const value = Number(given);
    if (/^\d+$/.test(given) && value >= least && value <= most) return value;
    wrong.push(`${name} must be a whole number from ${least} to ${most}`);
    return otherwise;
  };
  const check = (right: boolean, fault: string): void => {
    if (!right) wrong.push(fault);
  };

  const encoded = text('GATEWAY_KEY', '');
  const key = Buffer.from(encoded, 'base64');
  const isBase64 = /^[A-Za-z0-9+/]{43}=$/.test(encoded);
  check(isBase64 && key.length === 32, 'GATEWAY_KEY must be the base64 of 32 bytes (openssl rand -base64 32)');
  const token = text('GATEWAY_TOKEN', '');
  check(token.length >= 16, 'GATEWAY_TOKEN must have at least 16 characters');
  const data = text('GATEWAY_DATA', '');
  check(data !== '', 'GATEWAY_DATA must name the data folder');
  const socket = text('GATEWAY_SOCKET', 'baileys');
  check(socket === 'baileys' || socket === 'scripted', 'GATEWAY_SOCKET must be baileys or scripted');
  const version = text('GATEWAY_WA_VERSION', '');
  check(version === '' || /^\d+\.\d+\.\d+$/.test(version), 'GATEWAY_WA_VERSION must look like 2.3000.1043857760');

  const privateLinks = text('GATEWAY_ALLOW_PRIVATE_LINKS', 'no');
  check(privateLinks === 'yes' || privateLinks === 'no', 'GATEWAY_ALLOW_PRIVATE_LINKS must be yes or no');

  const settings: Settings = {
    host: text('GATEWAY_HOST', '127.0.0.1'),
    port: whole('GATEWAY_PORT', 8090, 0, 65_535),
    data,
    key,
    token,
    waVersion: version === '' ? null : (version.split('.').map(Number) as WAVersion),
    socket: socket === 'scripted' ? 'scripted' : 'baileys',
    scriptLog: text('GATEWAY_SCRIPT_LOG', '') || null,
    sendIntervalMs: whole('GATEWAY_SEND_INTERVAL_MS', 3000, 0, 3_600_000),
    chatIntervalMs: whole('GATEWAY_CHAT_INTERVAL_MS', 1500, 0, 3_600_000),
    dailyCap: whole('GATEWAY_DAILY_CAP', 0, 0, 1_000_000),
    backlogS: whole('GATEWAY_BACKLOG_S', 900, 0, 86_400),
    leaseMs: whole('GATEWAY_LEASE_MS', 15_000, 2000, 600_000),
    maxMediaBytes: whole('GATEWAY_MAX_MEDIA_BYTES', 64_000_000, 1, 2_000_000_000),
    allowPrivateLinks: privateLinks === 'yes',
    webhookTimeoutMs: whole('GATEWAY_WEBHOOK_TIMEOUT_MS', 10_000, 100, 120_000),
    retryFirstMs: whole('GATEWAY_RETRY_FIRST_MS', 1000, 10, 300_000),
  };
  if (wrong.length > 0) throw new SettingsError(wrong.join('; '));
  return settings;
}
