/** Asks what is going on: often while something is, seldom otherwise, never while nobody looks. */
import { live } from './api.js';

const BUSY_MS = 400;
const CALM_MS = 2_000;
const BUSY_FOR_MS = 30_000;

/**
 * `message()` is the id to follow or null, `isMoving()` whether it is still on its way. `onLive(state, message)` hears each answer,
 * `onAway(isAway)` when the server goes and comes back. The result asks at once when it is called.
 */
export function watch({ person, message, isMoving, onLive, onAway }) {
  let timer;
  let asking = false;
  let again = false;
  let failures = 0;
  let changedAt = Date.now();
  let last = '';

  async function ask() {
    clearTimeout(timer);
    if (document.hidden) return;
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    again = false;
    const followed = message();
    try {
      const state = await live(person, followed);
      const seen = fingerprint(state);
      if (seen !== last) changedAt = Date.now();
      last = seen;
      if (failures > 1) onAway(false);
      failures = 0;
      onLive(state, followed);
    } catch (error) {
      if (!(error instanceof Error && 'status' in error)) throw error;
      failures += 1;
      if (failures === 2) onAway(true);
    } finally {
      asking = false;
      timer = setTimeout(ask, again ? 0 : pause());
    }
  }

  function pause() {
    if (failures) return Math.min(BUSY_MS * 2 ** failures, CALM_MS * 2);
    return isMoving() || Date.now() - changedAt < BUSY_FOR_MS ? BUSY_MS : CALM_MS;
  }

  document.addEventListener('visibilitychange', ask);
  void ask();
  return () => {
    changedAt = Date.now();
    void ask();
  };
}

/** What grows by itself is no change. */
function fingerprint(state) {
  return JSON.stringify(state, (key, value) => (key === 'waitS' ? undefined : value));
}
