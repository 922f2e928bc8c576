/** Stays connected: the event stream, the long poll where there can be no stream, and the way back after either breaks. */
import { asFailure, asJson } from './api';
import type { Api } from './api';
import { backoff, createPause } from './pause';
import { createParser } from './sse';
import type { OnEvent } from './sse';
import { uuid } from './uuid';
import type { Page } from './wire';

/** The server says something every 15 s. */
const SILENCE_MS = 40_000;
/** Nothing at all this long after connecting: something in between keeps the stream to itself. */
const FIRST_BYTE_MS = 15_000;
/** A stream this old ended in the normal run of things. */
const SETTLED_MS = 5_000;
/** How long the long poll does before the stream is tried again. */
const POLLING_MS = 300_000;

export interface StreamOptions {
  call: Api;
  after: () => number;
  /** Before each connection: what it goes on from is there. */
  prepare: () => Promise<void>;
  event: OnEvent;
  page: (page: Page) => void;
  connected: (isConnected: boolean) => void;
  /** The server will not have us, and says why. */
  refused: (why?: string) => void;
}

export interface Stream {
  start(): void;
  stop(): void;
  /** Things look better: do not wait any longer. */
  wake(): void;
  /** The network is gone, and the connection with it. */
  drop(): void;
  /** What the connection went on from has changed. */
  restart(): void;
}

export function createStream(options: StreamOptions): Stream {
  const pause = createPause();
  /** Our stream takes the place of an earlier one of ours, which the server may not know to be dead. */
  const page = uuid();
  let run: AbortController | null = null;
  let link: AbortController | null = null;
  let heardAt = 0;
  let pollUntil = 0;
  let isRestart = false;

  const isPolling = (): boolean => Date.now() < pollUntil;
  const drop = (): void => link?.abort();

  async function listen(signal: AbortSignal): Promise<void> {
    let isSilent = true;
    let watchdog = setTimeout(() => {
      pollUntil = Date.now() + POLLING_MS;
      drop();
    }, FIRST_BYTE_MS);
    try {
      await options.call(`/events?page=${page}&after=${options.after()}`, { accept: 'text/event-stream', signal }, async (response) => {
        const reader = response.body!.getReader();
        const decoder = new TextDecoder();
        const parse = createParser(options.event);
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          heardAt = Date.now();
          clearTimeout(watchdog);
          watchdog = setTimeout(drop, SILENCE_MS);
          if (isSilent) options.connected(true);
          isSilent = false;
          parse(decoder.decode(value, { stream: true }));
        }
      });
    } catch (error) {
      if (asFailure(error).problem.code !== 'too_many_streams') throw error;
      pollUntil = Date.now() + POLLING_MS;
    } finally {
      clearTimeout(watchdog);
    }
  }

  async function poll(signal: AbortSignal): Promise<void> {
    let wait = 0;
    while (isPolling()) {
      const path = `/messages?after=${options.after()}&limit=100&wait=${wait}`;
      const limit = setTimeout(drop, SILENCE_MS);
      const page = await options.call(path, { signal }, asJson<Page>).finally(() => clearTimeout(limit));
      heardAt = Date.now();
      options.connected(true);
      options.page(page);
      wait = 25;
    }
  }

  async function keep(signal: AbortSignal): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      const began = (heardAt = Date.now());
      const wasPolling = isPolling();
      let delay = 0;
      try {
        await options.prepare();
        if (signal.aborted) return;
        link = new AbortController();
        await (wasPolling ? poll : listen)(link.signal);
      } catch (error) {
        const { fatal, problem } = asFailure(error);
        if (fatal && !signal.aborted) return options.refused(problem.detail);
        delay = problem.retry_after_ms ?? 0;
      }
      // From the stream to the poll and back is no failure.
      if (signal.aborted || wasPolling !== isPolling()) continue;
      options.connected(false);
      if (isRestart || heardAt - began > SETTLED_MS) failures = 0;
      isRestart = false;
      await pause.wait(Math.max(delay, backoff(failures++)), delay > 0);
    }
  }

  return {
    start() {
      if (run) return;
      run = new AbortController();
      void keep(run.signal);
    },
    stop() {
      run?.abort();
      run = null;
      drop();
      pause.wake();
    },
    wake() {
      pause.wake();
      // A connection that slept with the machine looks alive; the server would have said something by now.
      if (Date.now() - heardAt > SILENCE_MS / 2) drop();
    },
    drop,
    restart() {
      isRestart = true;
      drop();
    },
  };
}
