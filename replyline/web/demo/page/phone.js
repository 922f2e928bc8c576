/** A telephone: what its person wrote and was answered, and a line to write in. */
import { arrange, byId, h, setData, setText, show } from './dom.js';

const NEAR_THE_END_PX = 80;
const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });

/** `send(text)` gives the channel's id of the message, or rejects with what to tell the person. */
export function createPhone({ panel, name, subtitle, label, about, suggestions, send }) {
  const phone = byId('phone').content.firstElementChild.cloneNode(true);
  const find = (selector) => phone.querySelector(selector);
  const log = find('.log');
  const list = find('.bubbles');
  const typing = find('.typing');
  const input = find('input');
  const bubbles = new Map();
  /** What the server does not show yet. */
  let pending = [];
  let seen = { messages: [], typing: false, read: false };
  let written = 0;

  setText(find('.phone-name'), name);
  setText(find('.empty-text'), about);
  log.setAttribute('aria-label', `Messages, ${label}`);
  input.id = `input-${panel.dataset.channel}`;
  find('label').htmlFor = input.id;
  setText(find('label'), `Write to ${name} on ${label}`);
  find('.chips').append(
    ...suggestions.map((text) => h('li', {}, h('button', { type: 'button', textContent: text, onclick: () => void write(text) }))),
  );
  find('form').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    input.value = '';
    void write(text);
  });
  panel.append(phone);
  draw();

  async function write(text) {
    const mine = { id: `pending-${(written += 1)}`, externalId: null, text, at: Date.now() / 1000, inbound: true, state: 'sending' };
    pending.push(mine);
    // A suggestion goes away with the focus on it; the line to write in would call up a telephone's keyboard.
    if (phone.querySelector('.empty').contains(document.activeElement)) log.focus({ preventScroll: true });
    draw(true);
    try {
      mine.externalId = await send(text);
      mine.state = 'sent';
    } catch (error) {
      mine.state = 'failed';
      mine.why = error.message;
    }
    settle();
    draw();
  }

  /** What the server shows by now keeps its bubble, so that it is not read out twice. */
  function settle() {
    pending = pending.filter((mine) => {
      const isIt = (one) => one.id === mine.externalId || (one.inbound && one.text === mine.text && !bubbles.has(one.id));
      const shown = mine.state === 'sent' && seen.messages.find(isIt);
      if (!shown) return true;
      const bubble = bubbles.get(mine.id);
      bubbles.delete(mine.id);
      if (bubble && !bubbles.has(shown.id)) bubbles.set(shown.id, bubble);
      return false;
    });
  }

  function update(state) {
    seen = state;
    settle();
    draw();
  }

  function draw(toTheEnd = false) {
    const isAtTheEnd = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_THE_END_PX;
    const messages = [...seen.messages, ...pending];
    const answeredBefore = messages.findLastIndex((one) => !one.inbound);
    const drawn = messages.map((one, place) => {
      const state = one.state ?? (seen.read || place < answeredBefore ? 'read' : 'sent');
      return bubble(one, one.inbound ? state : null, messages[place - 1]?.inbound !== one.inbound);
    });
    for (const id of bubbles.keys()) if (!messages.some((one) => one.id === id)) bubbles.delete(id);
    arrange(list, drawn);
    show(find('.empty'), messages.length === 0);
    show(typing, seen.typing);
    setText(find('.phone-sub'), seen.typing ? 'typing…' : subtitle);
    setData(find('.phone-sub'), 'typing', String(seen.typing));
    if (toTheEnd || isAtTheEnd) log.scrollTop = log.scrollHeight;
  }

  function bubble(one, state, isFirst) {
    let element = bubbles.get(one.id);
    if (!element) {
      element = h(
        'li',
        { className: `${one.inbound ? 'mine' : 'theirs'} new`, onanimationend: () => element.classList.remove('new') },
        h('span', { className: 'unseen', textContent: one.inbound ? 'You: ' : `${name}: ` }),
        h('p', { textContent: one.text }),
        h('span', { className: 'meta' }, h('time', { textContent: clock.format(one.at * 1000) }), one.inbound && h('i', { className: 'ticks', role: 'img' })),
      );
      bubbles.set(one.id, element);
    }
    element.classList.toggle('first', isFirst);
    element.classList.toggle('failed', state === 'failed');
    const ticks = element.querySelector('.ticks');
    if (ticks && ticks.dataset.state !== state) {
      setData(ticks, 'state', state);
      ticks.setAttribute('aria-label', { sending: 'being sent', sent: 'delivered', read: 'read', failed: 'not sent' }[state]);
      if (state === 'failed') element.append(failure(one));
    }
    return element;
  }

  function failure(one) {
    const retry = () => {
      pending = pending.filter((other) => other !== one);
      void write(one.text);
    };
    return h('div', { className: 'failure' }, `Not sent: ${one.why}.`, h('button', { type: 'button', textContent: 'Try again', onclick: retry }));
  }

  return { update, write };
}
