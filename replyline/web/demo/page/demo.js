/** The demo page: puts its parts together, and keeps them told of what happens. */
import * as api from './api.js';
import { byId, h, setText, show } from './dom.js';
import { createFaults } from './faults.js';
import { createPhone } from './phone.js';
import { createTabs } from './tabs.js';
import { createTimeline } from './timeline.js';
import { watch } from './watch.js';
import { createMilestones } from './milestones.js';

const PHONES = { cloud: 'WhatsApp Cloud API', qr: 'WhatsApp by QR' };
const LAST = 'replyline-demo-last';
const SETUP_AGAIN_MS = 3_000;
const FORGOTTEN_MS = 5_000;

async function start() {
  const given = await setup();
  const person = api.personOfThisBrowser();
  const tabs = createTabs();
  const milestones = createMilestones({ onEnd: (view) => faults.passed(outcomeOfFaults(view)) });
  const timeline = createTimeline({ milestone: milestones.tell, changed: () => askNow() });
  let followed = remembered();
  let followedSince = Date.now();
  let answers = {};

  const phones = Object.fromEntries(
    Object.entries(PHONES).map(([name, label]) => [
      name,
      createPhone({
        panel: byId(`panel-${name}`),
        name: given.business,
        subtitle: subtitleOf(name, given),
        label,
        about: `You are ${readable(person)}. No real phone rings: a stand-in for ${name === 'cloud' ? 'Meta' : 'the telephone'} runs on this machine.`,
        suggestions: given.suggestions,
        send: (text) => send(name, text),
      }),
    ]),
  );
  const faults = createFaults({
    changed: () => askNow(),
    write(name) {
      tabs.select(name);
      void phones[name].write(given.suggestions[1] ?? given.suggestions[0] ?? 'Hello?');
      byId('timeline').scrollIntoView({ block: 'nearest' });
    },
  });

  async function send(name, text) {
    const at = Date.now() / 1000;
    const before = followed;
    follow({ id: null, channel: name, text, at });
    const { messageId, externalId } = await api.write(name, person, text).catch((error) => {
      if (followed?.at === at) follow(before);
      throw error;
    });
    if (followed?.at === at) follow({ id: messageId, channel: name, text, at });
    askNow();
    return externalId;
  }

  function follow(message) {
    if (message?.id !== followed?.id) followedSince = Date.now();
    followed = message;
    timeline.follow(message);
    for (const mark of document.querySelectorAll('.followed')) show(mark, mark.closest('.panel').dataset.channel === message?.channel);
    if (message?.id) api.store(LAST, JSON.stringify({ person, ...message }));
  }

  function remembered() {
    try {
      const last = JSON.parse(api.stored(LAST));
      return last?.person === person && last.id ? last : null;
    } catch {
      return null;
    }
  }

  const askNow = watch({
    person,
    message: () => followed?.id ?? null,
    isMoving: timeline.isMoving,
    onLive(state, message) {
      for (const name of Object.keys(phones)) {
        phones[name].update(state.phones[name]);
        const count = state.phones[name].messages.filter((one) => !one.inbound).length;
        if (answers[name] !== undefined && count > answers[name]) tabs.mark(name);
        answers = { ...answers, [name]: count };
      }
      if (!message || message !== followed?.id) return;
      // What the demo has forgotten (its data is new) is not waited for.
      if (!state.timeline && Date.now() - followedSince > FORGOTTEN_MS) follow(null);
      else timeline.update(state.timeline);
    },
    onAway(isAway) {
      setText(byId('banner'), isAway ? 'Replyline does not answer, so nothing is counted. What was taken is kept; this page goes on when it is back.' : '');
      timeline.setAway(isAway);
    },
  });

  if (followed) follow(followed);
  document.addEventListener('replyline:sent', (event) => {
    if (!event.detail?.id) return;
    follow({ id: event.detail.id, channel: 'widget', text: '', at: null });
    askNow();
  });
  document.addEventListener('replyline:message', () => tabs.mark('widget'));
  byId('widget').append(h('replyline-chat', { 'site-key': given.siteKey, inline: true }));
  copies('copy-command', 'command');
}

async function setup() {
  for (;;) {
    try {
      const given = await api.setup();
      setText(byId('banner'), '');
      return given;
    } catch (error) {
      setText(byId('banner'), error.status === 404 ? 'The demo does not run here. Start it with: replyline start --demo' : `${error.message}. Trying again…`);
      await new Promise((resolve) => setTimeout(resolve, SETUP_AGAIN_MS));
    }
  }
}

function subtitleOf(name, given) {
  return name === 'cloud' ? (given.cloud.number ?? `number id ${given.cloud.id}`) : `linked telephone “${given.qr.session}”`;
}

const readable = (digits) => `+${digits.slice(0, 2)} ${digits.slice(2, 5)} ${digits.slice(5)}`;

const outcomeOfFaults = (view) => ({ sawErrors: view.stages.some((stage) => stage.errors.length > 0), took: view.total });

function copies(button, source) {
  byId(button).addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(byId(source).textContent);
      setText(byId(button), 'Copied');
    } catch {
      getSelection().selectAllChildren(byId(source));
      setText(byId(button), 'Selected');
    }
    setTimeout(setText, 2_000, byId(button), 'Copy');
  });
}

void start();
