/** Fetching a file that is to be sent from the link that a customer gave: never from inside our own network. */
import * as dns from 'node:dns';
import * as http from 'node:http';
import * as https from 'node:https';
import { BlockList, isIP } from 'node:net';
import type { LookupFunction } from 'node:net';
import { Refusal } from './refusal.js';

const TIMEOUT_MS = 60_000;
const REDIRECTS = 3;

export interface Fetched {
  data: Buffer;
  /** As the server says; null where it says nothing in particular. */
  mime: string | null;
  /** The last part of the link's path; null if there is none. */
  name: string | null;
}

export interface LinkRules {
  maxBytes: number;
  /** For tests, and for who keeps files on a server inside. */
  allowPrivate: boolean;
}

/** IANA's special-purpose registries: what is not on the public Internet. */
const INSIDE = new BlockList();
for (const [net, bits] of [
  ['0.0.0.0', 8], ['10.0.0.0', 8], ['100.64.0.0', 10], ['127.0.0.0', 8], ['169.254.0.0', 16], ['172.16.0.0', 12],
  ['192.0.0.0', 24], ['192.0.2.0', 24], ['192.88.99.0', 24], ['192.168.0.0', 16], ['198.18.0.0', 15],
  ['198.51.100.0', 24], ['203.0.113.0', 24], ['224.0.0.0', 4], ['240.0.0.0', 4],
] as const) {
  INSIDE.addSubnet(net, bits, 'ipv4');
}
for (const [net, bits] of [['2001::', 23], ['2001:db8::', 32], ['2002::', 16], ['3fff::', 20]] as const) {
  INSIDE.addSubnet(net, bits, 'ipv6');
}
const GLOBAL_V6 = new BlockList();
GLOBAL_V6.addSubnet('2000::', 3, 'ipv6');

/** Whether an address is on the public Internet. */
export function isPublic(address: string): boolean {
  if (isIP(address) === 4) return !INSIDE.check(address, 'ipv4');
  return isIP(address) === 6 && GLOBAL_V6.check(address, 'ipv6') && !INSIDE.check(address, 'ipv6');
}

/** Fetch the file. Throws Refusal: `bad_link` where it will never work, `too_large`, or `unavailable`. */
export async function fetchLink(link: string, rules: LinkRules): Promise<Fetched> {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  let url = parse(link);
  for (let hop = 0; hop <= REDIRECTS; hop++) {
    const answer = await ask(url, rules, signal);
    const status = answer.statusCode ?? 0;
    if (status >= 300 && status < 400 && answer.headers.location) {
      answer.destroy();
      url = parse(answer.headers.location, url);
      continue;
    }
    if (status !== 200) {
      answer.destroy();
      if (status === 429 || status >= 500) throw new Refusal('unavailable', `the link answered ${status}`, 10_000);
      throw new Refusal('bad_link', `the link answered ${status}`);
    }
    return { data: await read(answer, rules.maxBytes), mime: mimeOf(answer.headers['content-type']), name: nameOf(url) };
  }
  throw new Refusal('bad_link', 'the link leads on and on');
}

function parse(link: string, base?: URL): URL {
  const url = URL.canParse(link, base?.href) ? new URL(link, base) : null;
  const isWeb = url !== null && /^https?:$/.test(url.protocol) && !url.username && !url.password;
  if (url === null || !isWeb) throw new Refusal('bad_link', 'the link is no address on the web');
  return url;
}

function ask(url: URL, { allowPrivate }: LinkRules, signal: AbortSignal): Promise<http.IncomingMessage> {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (!allowPrivate && isIP(host) !== 0 && !isPublic(host)) throw inside();
  // The address that was looked at is the one that is connected to.
  const lookup: LookupFunction = (name, options, done) => {
    dns.lookup(name, { ...options, all: true }, (error, found) => {
      const addresses = found as dns.LookupAddress[] | undefined;
      const [first] = addresses ?? [];
      if (error) return done(error, '');
      if (!allowPrivate && addresses?.some(({ address }) => !isPublic(address))) return done(inside(), '');
      if (options.all) return done(null, addresses ?? []);
      return first ? done(null, first.address, first.family) : done(new Error('no address'), '');
    });
  };
  const { get } = url.protocol === 'https:' ? https : http;
  return new Promise((resolve, reject) => {
    const headers = { 'accept-encoding': 'identity', 'user-agent': 'Replyline-Gateway/1' };
    const request = get(url, { agent: false, headers, lookup, signal }, resolve);
    request.once('error', (error) => reject(refusalOf(error)));
  });
}

async function read(answer: http.IncomingMessage, maxBytes: number): Promise<Buffer> {
  const tooLarge = new Refusal('too_large', `a file to be sent has at most ${maxBytes} bytes`);
  const chunks: Buffer[] = [];
  let size = Number(answer.headers['content-length'] ?? 0);
  try {
    if (size > maxBytes) throw tooLarge;
    size = 0;
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxBytes) throw tooLarge;
      chunks.push(chunk);
    }
  } catch (error) {
    answer.destroy();
    throw refusalOf(error as Error);
  }
  if (size === 0) throw new Refusal('bad_link', 'the link leads to an empty file');
  return Buffer.concat(chunks);
}

function inside(): Refusal {
  return new Refusal('bad_link', 'the link leads to a private or local address');
}

function refusalOf(error: Error): Refusal {
  if (error instanceof Refusal) return error;
  return new Refusal('unavailable', `the link cannot be read: ${(error as NodeJS.ErrnoException).code ?? error.name}`, 10_000);
}

function mimeOf(header: string | undefined): string | null {
  const mime = header?.trim().toLowerCase() ?? '';
  return mime === '' || mime.startsWith('application/octet-stream') || mime.startsWith('binary/') ? null : mime;
}

function nameOf(url: URL): string | null {
  const last = url.pathname.split('/').at(-1) ?? '';
  try {
    return decodeURIComponent(last).slice(0, 240) || null;
  } catch {
    return last.slice(0, 240) || null;
  }
}
