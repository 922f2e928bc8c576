/** Who this page is to the server: made when it is first needed, made anew before it runs out and when it is refused. */
import { asFailure, asJson, asNothing, request } from './api';
import type { Api } from './api';
import type { Storage } from './storage';
import type { Identity, SessionAnswer } from './wire';

/** A token is not used in the last seconds of its life: it might run out on the way. */
const MARGIN_MS = 60_000;

export interface Session {
  /** A call with the session's token; a 401 makes a new session once, and then the call is repeated. */
  call: Api;
  /** Null while there is none. */
  current(): SessionAnswer | null;
  /** True if this browser has been here before. */
  isKnown(): boolean;
  /** True if that made what was known before worth nothing, and a new session is to be made. */
  identify(identity: Identity): boolean;
  logout(): Promise<void>;
}

export interface SessionOptions {
  base: string;
  siteKey: string;
  storage: Storage;
  pageUrl: () => string;
  /** Every new session; `isOther` if it is of another conversation than the one before. */
  made: (answer: SessionAnswer, isOther: boolean) => void;
}

export function createSession(options: SessionOptions): Session {
  const { base, siteKey, storage } = options;
  let identity: Identity | null = null;
  let visitor: string | null = null;
  let answer: SessionAnswer | null = null;
  let conversation: string | null = null;
  let expiresAt = 0;
  let making: Promise<string> | null = null;
  let wasAsked = false;
  /** Counts changes of the visitor: an answer that was asked for before the last one is thrown away. */
  let generation = 0;

  async function make(): Promise<string> {
    const mine = generation;
    wasAsked = true;
    try {
      const made = await request<SessionAnswer>(
        `${base}/sessions`,
        null,
        {
          json: {
            site_key: siteKey,
            visitor_token: visitor ?? storage.get('visitor'),
            user: identity?.token ? null : identity,
            user_token: identity?.token ?? null,
            page_url: options.pageUrl(),
          },
        },
        asJson,
      );
      if (mine !== generation) return await make();
      visitor = made.visitor_token;
      storage.set('visitor', visitor);
      answer = made;
      expiresAt = Date.now() + made.expires_in * 1000;
      const isOther = conversation !== null && conversation !== made.conversation_id;
      conversation = made.conversation_id;
      options.made(made, isOther);
      return made.session_token;
    } catch (error) {
      if (mine !== generation) return await make();
      const failure = asFailure(error);
      failure.fatal = failure.isRefusal || failure.status === 401;
      throw failure;
    }
  }

  function token(refused?: string): Promise<string> {
    const isGood = answer && answer.session_token !== refused && Date.now() < expiresAt - MARGIN_MS;
    if (answer && isGood) return Promise.resolve(answer.session_token);
    making ??= make().finally(() => (making = null));
    return making;
  }

  function forget(): void {
    generation++;
    visitor = answer = null;
    storage.set('visitor', null);
  }

  return {
    async call(path, call, read) {
      const used = await token();
      try {
        return await request(base + path, used, call, read);
      } catch (error) {
        if (asFailure(error).status !== 401) throw error;
        return await request(base + path, await token(used), call, read);
      }
    },
    current: () => answer,
    isKnown: () => storage.get('visitor') !== null,
    identify(next) {
      if (JSON.stringify(next) === JSON.stringify(identity)) return false;
      identity = next;
      // Before the first session nothing is known to have changed: the server knows whose the visitor token is.
      const isChange = wasAsked;
      if (isChange) forget();
      return isChange;
    },
    async logout() {
      const last = answer?.session_token;
      identity = null;
      forget();
      // Offline the server does not learn of it; this browser has forgotten the token all the same.
      if (last) await request(`${base}/sessions`, last, { method: 'DELETE' }, asNothing).catch(() => {});
    },
  };
}
