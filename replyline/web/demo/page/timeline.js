/** Draws what `stages` describes: the track, the branch of webhooks, and where the time went. */
import { replay } from './api.js';
import { arrange, byId, h, setData, setText, show } from './dom.js';
import { describe } from './stages.js';
import { duration, plural } from './words.js';

const FRAME_MS = 100;
const CALM_FRAME_MS = 500;
const OUTCOMES = { idle: '', moving: 'On its way', held: 'Held', delivered: 'Delivered', silent: 'No reply was due', dead: 'Given up' };
const CHANNELS = { widget: 'the web widget', cloud: 'WhatsApp Cloud API', qr: 'WhatsApp by QR' };
const STATES = { idle: 'not reached yet', waiting: 'waiting', running: 'in work', done: 'done', dead: 'given up', held: 'held' };
const INVITATION = 'Write something above: each stage lights up as the message reaches it.';
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
/** By then the page knows what became of it. */
const REPLAY_SHOWN_MS = 2_000;
const MOST_TICKS = 7;
/** Behind this part of the axis there is no room for a number. */
const LAST_LABEL = 0.92;

/** `milestone(view)` hears of every change; `changed()` hears that something may move now. */
export function createTimeline({ milestone, changed }) {
  const boxes = Array.from({ length: 6 }, createBox);
  byId('track').append(...boxes.map((box) => box.element));
  const branch = createBranch();
  const gantt = createGantt();
  let timeline = null;
  let written = null;
  let before = { id: undefined, timeline: null };
  /** In Unix seconds: since then nobody has said how things stand; null while the server answers. */
  let awaySince = null;
  let replaying = null;
  const now = () => awaySince ?? Date.now() / 1000;
  let view = describe(null, null, now());
  byId('replay').addEventListener('click', () => void replayDead());

  function draw() {
    view = describe(timeline, written, now());
    view.stages.forEach((stage, place) => boxes[place].update(stage));
    branch.update(view.branch);
    gantt.update(view);
    const isUnknown = awaySince !== null && view.isMoving;
    setText(byId('outcome'), isUnknown ? 'Not known: no answer' : OUTCOMES[view.outcome]);
    setData(byId('outcome'), 'state', isUnknown ? 'held' : view.outcome);
    show(byId('replay'), view.deadJob !== null && replaying !== view.deadJob);
    setText(byId('total'), duration(view.total));
    setText(byId('following'), written ? `${written.text ? `“${written.text}”` : 'What you wrote'} on ${CHANNELS[written.channel]}` : INVITATION);
    drawIds();
    milestone(view);
  }

  function drawIds() {
    show(byId('ids'), Boolean(written?.id));
    if (!written?.id) return;
    setText(byId('command'), `replyline trace ${written.id}`);
  }

  async function replayDead() {
    const job = view.deadJob;
    replaying = job;
    draw();
    try {
      await replay(job);
    } catch (error) {
      setText(byId('outcome'), `Not replayed: ${error.message}`);
    } finally {
      changed();
      setTimeout(() => (replaying = null), REPLAY_SHOWN_MS);
    }
  }

  /** Seconds are counted here, between two answers of the server. */
  (function tick() {
    if (!document.hidden && view.isMoving && awaySince === null) draw();
    setTimeout(tick, view.outcome === 'held' ? CALM_FRAME_MS : FRAME_MS);
  })();
  draw();

  return {
    /** Begin with another message, whose id may not be known yet; null is none. */
    follow(message) {
      if (message?.id !== written?.id) {
        // Where the next one is not taken, the page comes back to this one.
        if (written?.id) before = { id: written.id, timeline };
        timeline = message && before.id === message.id ? before.timeline : null;
      }
      written = message;
      draw();
    },
    update(found) {
      if (found && found.messageId !== written?.id) return;
      timeline = found ?? timeline;
      draw();
    },
    /** While nobody answers, no second is counted. */
    setAway(isAway) {
      awaySince = isAway ? (awaySince ?? Date.now() / 1000) : null;
      draw();
    },
    /** What is held may be so for hours. */
    isMoving: () => view.isMoving && view.outcome !== 'held',
  };
}

function createBox() {
  const title = h('h3');
  const state = h('span', { className: 'unseen' });
  const waited = h('dd');
  const ran = h('dd');
  const tries = h('dd');
  const ranRow = h('div', {}, h('dt', { textContent: 'ran' }), ran);
  const triesRow = h('div', { className: 'tries', hidden: true }, h('dt', { textContent: 'tries' }), tries);
  const times = h(
    'dl',
    { hidden: true },
    h('div', {}, h('dt', { textContent: 'waited' }), waited),
    ranRow,
    triesRow,
  );
  const note = h('p');
  const errors = createErrors();
  const element = h('li', {}, h('i', { className: 'lamp', 'aria-hidden': 'true' }), h('div', {}, title, state, times, note, errors.element));
  return {
    element,
    update(stage) {
      setText(title, stage.title);
      setData(element, 'state', stage.state);
      setText(state, STATES[stage.state]);
      show(times, stage.waited !== null);
      setText(waited, duration(stage.waited));
      show(ranRow, stage.ran !== null);
      setText(ran, duration(stage.ran));
      show(triesRow, stage.tries > 1);
      setText(tries, String(stage.tries));
      setText(note, stage.note);
      errors.update(stage.errors);
    },
  };
}

function createErrors() {
  const summary = h('summary');
  const list = h('ol');
  const element = h('details', { hidden: true }, summary, list);
  let count = 0;
  return {
    element,
    update(errors) {
      show(element, errors.length > 0);
      if (errors.length === count) return;
      count = errors.length;
      if (!count) element.open = false;
      setText(summary, plural(count, 'failed try', 'failed tries'));
      arrange(list, errors.map((error) => h('li', {}, h('b', { textContent: `${error.attempt}. ${error.reason}` }), h('span', { textContent: error.message }))));
    },
  };
}

function createBranch() {
  const list = h('ul');
  const hint = h('p', { textContent: 'The customer’s own server hears of every step, signed and retried.' });
  const title = h('h3', { textContent: 'webhook-delivery' });
  byId('branch').append(h('i', { 'aria-hidden': 'true' }), title, hint, list);
  const chips = new Map();
  return {
    update(events) {
      setData(byId('branch'), 'state', events.length ? 'reached' : 'idle');
      show(hint, events.length === 0);
      const drawn = events.map((event) => {
        const chip = chips.get(event.id) ?? h('li', {}, h('span'), h('b', { textContent: event.type }));
        chips.set(event.id, chip);
        setData(chip, 'state', event.status);
        const tries = event.attempts > 1 ? `, ${event.attempts} tries` : '';
        chip.title = `${event.status.toLowerCase()}${tries}`;
        setText(chip.firstChild, { PENDING: '…', DELIVERED: '✓', FAILED: '✕' }[event.status] ?? '');
        chip.firstChild.setAttribute('aria-hidden', 'true');
        chip.setAttribute('aria-label', `${event.type}: ${chip.title}`);
        return chip;
      });
      for (const id of chips.keys()) if (!events.some((event) => event.id === id)) chips.delete(id);
      arrange(list, drawn);
    },
  };
}

function createGantt() {
  const axis = h('div', { className: 'axis', 'aria-hidden': 'true' });
  const list = h('ul', { className: 'rows' });
  const hint = h('p', { className: 'gantt-hint', textContent: 'How long each job waited and ran, and which tries failed.' });
  byId('gantt').append(hint, axis, list);
  const rows = new Map();
  return {
    update(view) {
      show(hint, view.outcome === 'idle');
      show(axis, view.outcome !== 'idle');
      const scale = scaleOf(view);
      drawAxis(axis, scale, view);
      const drawn = view.rows.map((row) => {
        const known = rows.get(row.queue) ?? createRow(row);
        rows.set(row.queue, known);
        known.update(row, scale, view.from);
        return known.element;
      });
      for (const queue of rows.keys()) if (!view.rows.some((row) => row.queue === queue)) rows.delete(queue);
      arrange(list, drawn);
    },
  };
}

function scaleOf(view) {
  const span = Math.max(0.5, (view.to - view.from) * 1.02);
  const step = STEPS_S.find((one) => span / one <= MOST_TICKS) ?? span / MOST_TICKS;
  return { span, step };
}

function drawAxis(axis, { span, step }, view) {
  const marks = [];
  for (let at = 0; at <= span; at += step) marks.push({ at, text: at === 0 ? '0' : at / span < LAST_LABEL ? `${+at.toFixed(1)} s` : '', kind: 'tick' });
  if (view.deliveredAt) marks.push({ at: view.deliveredAt - view.from, text: '', kind: 'end' });
  while (axis.children.length > marks.length) axis.lastChild.remove();
  while (axis.children.length < marks.length) axis.append(h('span'));
  marks.forEach((mark, place) => {
    const element = axis.children[place];
    setText(element, mark.text);
    element.className = mark.kind;
    element.style.left = percent(mark.at / span);
  });
}

function createRow(row) {
  const label = h('span', { className: 'row-label', textContent: row.queue });
  const bars = h('span', { className: 'bars', 'aria-hidden': 'true' });
  const told = h('span', { className: 'row-told', 'aria-hidden': 'true' });
  const read = h('span', { className: 'unseen' });
  const element = h('li', {}, label, bars, told, read);
  return {
    element,
    update(now, { span }, from) {
      setData(element, 'state', now.state);
      const waited = duration(now.waited);
      const ran = duration(now.ran);
      const both = now.ran === null ? waited : `${waited} · ${ran}`;
      setText(told, now.state === 'idle' ? '' : now.events ? plural(now.events, 'event') : both);
      setText(read, now.state === 'idle' ? 'not reached yet' : `waited ${waited}, ran ${ran}`);
      while (bars.children.length > now.bars.length) bars.lastChild.remove();
      while (bars.children.length < now.bars.length) bars.append(h('i'));
      now.bars.forEach((bar, place) => {
        const { style } = bars.children[place];
        bars.children[place].className = bar.kind;
        style.left = percent((bar.from - from) / span);
        style.width = bar.kind === 'fail' ? '' : percent((bar.to - bar.from) / span);
      });
    },
  };
}

const percent = (part) => `${(Math.min(1, Math.max(0, part)) * 100).toFixed(2)}%`;
