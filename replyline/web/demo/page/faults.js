/** Breaking something, on purpose: what each button does, what will be seen, and a message that shows it. */
import { breakSomething, killWorker, wipeRedis } from './api.js';
import { byId, h } from './dom.js';

const FAULTS = [
  {
    kind: 'cloud_fails_twice',
    title: 'Cloud fails twice',
    text: 'Meta refuses the next send twice: watch it being tried again after about 1 s and 2 s. The reply comes once.',
    phone: 'cloud',
  },
  {
    kind: 'cloud_refuses',
    title: 'Cloud refuses',
    text: 'Meta refuses the next send for good: no try can help, so the reply becomes a dead letter. “Replay” in the timeline sends it after all.',
    phone: 'cloud',
  },
  {
    kind: 'ai_fails_once',
    title: 'AI fails once',
    text: 'The AI provider answers the next call with an HTTP 500: ai-processing tries again, and nobody notices.',
    phone: 'cloud',
  },
  { kind: 'ai_slow', title: 'AI is slow', text: 'The next answer takes 6 s more: “typing…” stays on, and other conversations are not held up.', phone: 'cloud' },
  {
    kind: 'qr_down',
    title: 'Phone logs out',
    text: 'The QR session is logged out: replies are held, not lost. “Mend everything” links it again and they go out.',
    phone: 'qr',
  },
  {
    kind: 'worker_killed',
    title: 'Kill a worker',
    run: killWorker,
    text: 'Killed with SIGKILL. What you write now is kept at the door, and goes on when “replyline start” has started the next worker.',
    phone: 'cloud',
  },
  {
    kind: 'redis_wiped',
    title: 'Wipe Redis',
    run: wipeRedis,
    text: 'Redis is empty: queues, jobs and locks are gone. Postgres knows every message, so whatever was under way is put back.',
    phone: 'cloud',
  },
];
const NOTHING = 'Pick one, write a message, and watch what Replyline does about it.';
const PLACES = { cloud: 'WhatsApp Cloud', qr: 'WhatsApp by QR' };

/** `write(phone)` writes something there; `changed()` hears that something may move now. */
export function createFaults({ write, changed }) {
  const buttons = new Map(
    FAULTS.map((fault) => [fault.kind, h('button', { type: 'button', ...(!fault.run && { 'aria-pressed': 'false' }), textContent: fault.title, onclick: () => void arm(fault) })]),
  );
  byId('faults').append(...buttons.values());
  byId('mend').addEventListener('click', () => void mend());
  say(NOTHING);

  async function arm(fault) {
    try {
      await (fault.run ? fault.run() : breakSomething(fault.kind));
    } catch (error) {
      return say(`That could not be broken: ${error.message}.`);
    }
    // What was done at once does not wait for the next message.
    if (!fault.run) buttons.get(fault.kind).setAttribute('aria-pressed', 'true');
    const go = h('button', { type: 'button', className: 'go', textContent: `Write on ${PLACES[fault.phone]}`, onclick: () => write(fault.phone) });
    say(fault.text, go);
  }

  async function mend() {
    try {
      await breakSomething('none');
    } catch (error) {
      return say(`That could not be mended: ${error.message}.`);
    }
    for (const button of buttons.values()) if (button.hasAttribute('aria-pressed')) button.setAttribute('aria-pressed', 'false');
    changed();
    say('All channels work again. Held messages are sent now.');
  }

  function say(text, ...more) {
    const place = byId('fault-text');
    place.replaceChildren(h('p', { textContent: text }), ...more);
  }

  return {
    /** A message came through or was given up: what happens only once has happened. */
    passed({ sawErrors, took }) {
      for (const [kind, button] of buttons) {
        if (kind === 'qr_down' || !button.hasAttribute('aria-pressed')) continue;
        if (sawErrors || (kind === 'ai_slow' && took > 6)) button.setAttribute('aria-pressed', 'false');
      }
    },
  };
}
