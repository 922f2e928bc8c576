/** Breaking something, on purpose: what each button does, what will be seen, and a message that shows it. */
import { breakSomething } from './api.js';
import { byId, h } from './dom.js';

const FAULTS = [
  {
    kind: 'cloud_fails_twice',
    title: 'Cloud fails twice',
    text: 'Meta refuses the next send twice: watch it being tried again after about 1 s and 2 s. The reply comes once.',
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
    title: 'Telephone logs out',
    text: 'The QR session is logged out: replies are held, not lost. “Mend everything” links it again and they go out.',
    phone: 'qr',
  },
];
const NOTHING = 'Pick one, write a message, and watch what Replyline does about it.';
const PLACES = { cloud: 'WhatsApp Cloud', qr: 'WhatsApp by QR' };

/** `write(phone)` writes something there; `changed()` hears that something may move now. */
export function createFaults({ write, changed }) {
  const buttons = new Map(
    FAULTS.map((fault) => [fault.kind, h('button', { type: 'button', 'aria-pressed': 'false', textContent: fault.title, onclick: () => void arm(fault) })]),
  );
  byId('faults').append(...buttons.values());
  byId('mend').addEventListener('click', () => void mend());
  say(NOTHING);

  async function arm(fault) {
    try {
      await breakSomething(fault.kind);
    } catch (error) {
      return say(`That could not be broken: ${error.message}.`);
    }
    buttons.get(fault.kind).setAttribute('aria-pressed', 'true');
    const go = h('button', { type: 'button', className: 'go', textContent: `Write on ${PLACES[fault.phone]}`, onclick: () => write(fault.phone) });
    say(fault.text, go);
  }

  async function mend() {
    try {
      await breakSomething('none');
    } catch (error) {
      return say(`That could not be mended: ${error.message}.`);
    }
    for (const button of buttons.values()) button.setAttribute('aria-pressed', 'false');
    changed();
    say('All is well again. What was held goes out now.');
  }

  function say(text, ...more) {
    const place = byId('fault-text');
    place.replaceChildren(h('p', { textContent: text }), ...more);
  }

  return {
    /** A message came through: what happens only once has happened. */
    passed({ sawErrors, took }) {
      for (const [kind, button] of buttons) {
        if (kind === 'qr_down') continue;
        if (sawErrors || (kind === 'ai_slow' && took > 6)) button.setAttribute('aria-pressed', 'false');
      }
    },
  };
}
