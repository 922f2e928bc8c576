/** From a message's timeline to what is shown of it. Pure: no clock, no page. All times in Unix seconds. */
import { countdown, duration, isHeld, whatItWaitedFor, whyItDied, whyItWaits } from './words.js';

const SEND = { cloud: 'whatsapp-cloud-send', qr: 'whatsapp-qr-send' };
const SEND_TITLES = { widget: 'widget log', cloud: SEND.cloud, qr: SEND.qr };
const ABOUT_SEND = { widget: 'Shown on the open page', cloud: 'Handed to Meta', qr: 'Handed to the telephone' };
/** Before this, a job that is due counts as just picked up. */
const DUE_S = 0.02;
/** A shorter wait explains nothing. */
const WORTH_TELLING_S = 0.1;
const RECEIVED = ['DELIVERED', 'READ'];

const seconds = (moment) => (moment ? Date.parse(moment) / 1000 : null);

/**
 * `written` is what was written: `{channel, at}` (`at` null where only the door knows), or null before anything was.
 * `timeline` is null until the pipeline tells of it.
 */
export function describe(timeline, written, now) {
  const channel = written?.channel ?? null;
  const all = (timeline?.jobs ?? []).map((job) => readJob(job, now));
  const answers = (timeline?.messages ?? []).filter((message) => message.direction === 'OUTBOUND');
  const entered = all.find((job) => job.queue === 'incoming-messages' && job.messageId === timeline.messageId) ?? all[0];
  const from = begin(written, entered, now);
  const jobs = all.filter((job) => job.to >= from).map((job) => since(from, job));
  const receipts = answers.map((answer) => receivedAt(answer, channel, jobs));
  const deliveredAt = answers.length && receipts.every(Boolean) ? Math.max(...receipts) : null;
  const failed = answers.find((answer) => answer.status === 'FAILED');
  const main = jobs.filter((job) => job.queue !== 'webhook-delivery');
  const dead = main.find((job) => job.state === 'dead');
  const held = main.find((job) => job.state === 'held');
  const isSilent = !answers.length && of(main, 'ai-processing').length > 0 && main.every((job) => job.state === 'done');
  const outcome = outcomeOf({ written, dead, failed, held, deliveredAt, isSilent });

  const stages = [
    door(written, entered, from),
    stage('incoming-messages', 'Saved, in its conversation’s order', entered && [entered]),
    stage('ai-processing', 'Knowledge looked up, answer written', of(main, 'ai-processing')),
    stage('outgoing-messages', 'Routed to the channel it came from', of(main, 'outgoing-messages')),
    channel === 'widget'
      ? widgetLog(answers)
      : stage(SEND_TITLES[channel] ?? 'channel send', ABOUT_SEND[channel] ?? 'Handed to the channel', of(main, ...Object.values(SEND))),
    receipt(answers, channel, from, deliveredAt, failed),
  ];
  const isOver = ['delivered', 'dead', 'silent'].includes(outcome);
  const to = isOver ? Math.max(deliveredAt ?? 0, ...jobs.map((job) => job.to)) : now;
  return {
    outcome,
    stages,
    branch: (timeline?.webhookEvents ?? []).map((event) => ({ id: event.id, type: event.type, status: event.status, attempts: event.attempts })),
    rows: rows(jobs, channel, timeline?.webhookEvents.length ?? 0),
    from,
    to,
    deliveredAt,
    deadJob: dead?.id ?? null,
    total: written ? (deliveredAt ?? (isOver ? to : now)) - from : null,
    isMoving: Boolean(written) && !isOver,
  };
}

/** The page's own clock counts from when it was written, where it fits with the door's. */
function begin(written, entered, now) {
  const taken = entered?.from ?? written?.at ?? now;
  return written?.at && taken - written.at >= 0 && taken - written.at < 5 ? written.at : taken;
}

function readJob(job, now) {
  const from = seconds(job.createdAt);
  const due = seconds(job.runAt);
  const started = seconds(job.startedAt);
  const finished = seconds(job.finishedAt);
  const errors = (job.errors ?? []).map((error) => ({ ...error, at: seconds(error.at) }));
  const state = stateOf(job, due, now);
  // While a job is due, a worker has it: Postgres hears of a run only when it ends.
  const ranFrom = finished ? started : state === 'running' ? Math.max(due, from) : null;
  return { ...job, state, from, due, errors, ranFrom, ranTo: ranFrom ? (finished ?? now) : null, to: finished ?? now };
}

/** A message that is answered together with an earlier one shares its jobs: what was before it is not counted. */
function since(from, job) {
  return { ...job, from: Math.max(from, job.from), ranFrom: job.ranFrom && Math.max(from, job.ranFrom) };
}

function stateOf(job, due, now) {
  if (job.state === 'DEAD') return 'dead';
  if (job.state === 'DONE') return 'done';
  if (due === null) return job.waitReason?.startsWith('behind') || !job.waitReason ? 'waiting' : 'held';
  return due > now + DUE_S ? 'waiting' : 'running';
}

const of = (jobs, ...queues) => jobs.filter((job) => queues.includes(job.queue));

function outcomeOf({ written, dead, failed, held, deliveredAt, isSilent }) {
  if (!written) return 'idle';
  if (dead || failed) return 'dead';
  if (deliveredAt) return 'delivered';
  if (isSilent) return 'silent';
  return held ? 'held' : 'moving';
}

/** WhatsApp's receipts know whole seconds: one may seem to be older than the send that it is for. */
function receivedAt(answer, channel, jobs) {
  const sent = of(jobs, ...Object.values(SEND)).filter((job) => job.messageId === answer.id && job.state === 'done');
  const told = seconds(answer.deliveredAt ?? answer.readAt ?? answer.sentAt);
  if (RECEIVED.includes(answer.status)) return Math.max(told, ...sent.map((job) => job.to));
  // A page that has an answer says so a little later; the log is where our part ends.
  return channel === 'widget' && answer.status === 'SENT' ? seconds(answer.sentAt) : null;
}

const idle = (title, note, kind) => ({ title, kind, state: 'idle', note, waited: null, ran: null, tries: 0, errors: [] });

function door(written, entered, from) {
  const base = idle('door', 'Signature checked, kept in Postgres', 'place');
  if (!written) return base;
  if (!entered) return { ...base, state: 'running', note: 'Being taken' };
  const took = entered.from - from;
  return { ...base, state: 'done', note: took > 0 ? `In Postgres ${duration(took)} after Enter` : 'In Postgres: it cannot get lost' };
}

/** One box for a queue. Of several jobs the last counts; what went wrong with any of them is told. */
function stage(title, about, jobs) {
  const job = jobs?.at(-1);
  if (!job) return idle(title, about, 'queue');
  const isWorked = job.ranFrom !== null;
  return {
    title,
    kind: 'queue',
    state: job.state,
    waited: isWorked ? job.ranFrom - job.from : job.to - job.from,
    ran: isWorked ? job.ranTo - job.ranFrom : null,
    tries: job.attempts + (job.state === 'done' ? 1 : 0),
    note: noteOf(job, about),
    errors: jobs.flatMap((one) => one.errors),
  };
}

function noteOf(job, about) {
  if (job.state === 'dead') return `Given up: ${whyItDied(job.reason)}`;
  if (job.state === 'held') return whyItWaits(job.waitReason);
  if (job.state === 'running') return job.queue === 'ai-processing' ? 'The answer is being written' : 'In work';
  if (job.state === 'waiting') {
    const isUsual = job.queue === 'ai-processing' && job.due !== null;
    const why = whyItWaits(job.waitReason ?? (isUsual ? 'quiet_window' : 'behind_earlier'));
    const left = job.due === null ? 0 : job.due - job.to;
    return left > 0 ? `${why}: ${countdown(left)}` : why;
  }
  return waitedFor(job) ?? about;
}

/** What a job that is through was held up by for longest, beside its turn in the queue. */
function waitedFor(job) {
  const longest = [...(job.waits ?? [])].sort((one, other) => other.seconds - one.seconds)[0];
  return longest && longest.seconds >= WORTH_TELLING_S ? `${whatItWaitedFor(longest.reason)}: ${duration(longest.seconds)}` : null;
}

function widgetLog(answers) {
  const answer = answers.at(-1);
  const base = idle('widget log', ABOUT_SEND.widget, 'place');
  return answer && seconds(answer.sentAt) ? { ...base, state: 'done' } : base;
}

function receipt(answers, channel, from, deliveredAt, failed) {
  const base = idle('delivered', channel === 'widget' ? 'The page says that it has it' : 'The channel’s receipt', 'place');
  if (failed) return { ...base, state: 'dead', note: `Not delivered: ${whyItDied(failed.errorReason)}` };
  if (!answers.length) return base;
  if (deliveredAt) {
    const isRead = answers.every((answer) => answer.status === 'READ');
    return { ...base, state: 'done', note: `${isRead ? 'Read' : 'Delivered'}, ${duration(deliveredAt - from)} after Enter` };
  }
  return answers.some((answer) => answer.sentAt) ? { ...base, state: 'running', note: 'Sent: the receipt is on its way' } : base;
}

/** A row for each queue on the way, whether it was reached or not: nothing below moves when it is. */
function rows(jobs, channel, events) {
  const queues = ['incoming-messages', 'ai-processing', 'outgoing-messages', SEND[channel], 'webhook-delivery'];
  return queues.filter((queue) => queue || !channel).map((queue) => {
    const mine = queue ? of(jobs, queue) : [];
    const last = mine.at(-1);
    const worked = last && last.ranFrom !== null;
    return {
      queue: queue ?? 'channel send',
      state: mine.find((job) => job.state === 'dead')?.state ?? last?.state ?? 'idle',
      bars: mine.flatMap(barsOf),
      events: queue === 'webhook-delivery' ? events : null,
      waited: last ? (worked ? last.ranFrom : last.to) - last.from : null,
      ran: worked ? last.ranTo - last.ranFrom : null,
    };
  });
}

/** What it waits for now has no end yet. */
function waitsNow(job) {
  if (job.state !== 'waiting' && job.state !== 'held') return [];
  if (job.waitReason && job.waitSince) return [{ reason: job.waitReason, since: job.waitSince, seconds: Infinity }];
  return job.queue === 'ai-processing' && job.due !== null ? [{ reason: 'quiet_window', since: job.createdAt, seconds: Infinity }] : [];
}

function barsOf(job) {
  const until = job.ranFrom ?? job.to;
  const bars = [{ kind: job.state === 'held' ? 'held' : 'wait', from: job.from, to: until }];
  for (const wait of [...(job.waits ?? []), ...waitsNow(job)]) {
    const kind = wait.reason === 'quiet_window' ? 'window' : isHeld(wait.reason) ? 'held' : null;
    const from = Math.max(job.from, seconds(wait.since));
    const to = Math.min(until, seconds(wait.since) + wait.seconds);
    if (kind && to > from) bars.push({ kind, from, to });
  }
  if (job.ranFrom) bars.push({ kind: job.state === 'dead' ? 'dead' : 'run', from: job.ranFrom, to: job.ranTo });
  return [...bars, ...job.errors.map((error) => ({ kind: 'fail', from: error.at, to: error.at }))];
}
