// What the conformance tests ask of BullMQ for Node: `node node.mjs ROLE ENDPOINT QUEUE [SCENARIO]`, answers as lines of JSON.
import { Queue, QueueEvents, Worker, DelayedError, MetricsTime, UnrecoverableError, defaultRepeatStrategy } from 'bullmq';

const [role, endpoint, queueName, scenarioName] = process.argv.slice(2);
const connection = { ...JSON.parse(endpoint), maxRetriesPerRequest: null };
const say = (told) => process.stdout.write(`${JSON.stringify(told)}\n`);
const options = (more) => ({
  attempts: 4,
  backoff: { type: 'exponential', delay: 1000 },
  removeOnComplete: { age: 3600 },
  removeOnFail: { age: 86400 },
  ...more,
});

async function until(condition) {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error('the condition did not come true in 10 s');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function worked(queue, handler, states) {
  const metrics = { maxDataPoints: MetricsTime.TWO_WEEKS };
  const worker = new Worker(queueName, handler, { connection, concurrency: 1, name: 'w', metrics });
  await until(async () => {
    const counts = await queue.getJobCounts();
    return Object.entries(states).every(([state, count]) => counts[state] === count);
  });
  await worker.close();
}

const scenarios = {
  async add(queue) {
    await queue.add('answer', { n: 1 }, options({ jobId: 'plain' }));
    await queue.add('answer', { n: 1 }, options({ jobId: 'prio', priority: 3 }));
    await queue.add('answer', { n: 1 }, options({ jobId: 'again', priority: 3 }));
    await queue.add('answer', { n: 2 }, options({ jobId: 'again', priority: 3 }));
    await queue.add('answer', { n: 1 }, options({ jobId: 'later', priority: 3, delay: 60_000 }));
  },
  async complete(queue) {
    for (const jobId of ['a', 'b', 'c']) await queue.add('answer', { n: 1 }, options({ jobId, priority: 3 }));
    await worked(queue, async () => ({ ok: 1 }), { completed: 3 });
  },
  async meanwhile(queue) {
    const metrics = { maxDataPoints: MetricsTime.TWO_WEEKS };
    const worker = new Worker(queueName, async () => ({ ok: 1 }), { connection, concurrency: 4, name: 'w', metrics });
    await worker.waitUntilReady();
    for (const [added, jobId] of ['a', 'b', 'c'].entries()) {
      await queue.add('answer', { n: 1 }, options({ jobId, priority: 3 }));
      await until(async () => (await queue.getJobCounts()).completed === added + 1);
    }
    await worker.close();
  },
  async plain(queue) {
    for (const jobId of ['a', 'b']) await queue.add('answer', { n: 1 }, options({ jobId }));
    await worked(queue, async () => null, { completed: 2 });
  },
  async retry(queue) {
    await queue.add('answer', { n: 1 }, options({ jobId: 'a', priority: 3 }));
    const handler = async (job) => {
      if (job.attemptsMade === 0) throw new Error('not yet');
      return null;
    };
    await worked(queue, handler, { completed: 1 });
  },
  async postpone(queue) {
    await queue.add('answer', { n: 1 }, options({ jobId: 'a', priority: 3 }));
    const handler = async (job, token) => {
      if (job.attemptsStarted > 1) return null;
      await job.moveToDelayed(Date.now() + 50, token);
      throw new DelayedError();
    };
    await worked(queue, handler, { completed: 1 });
  },
  async fail(queue) {
    await queue.add('answer', { n: 1 }, options({ jobId: 'a', priority: 3 }));
    await worked(queue, async () => { throw new UnrecoverableError('never'); }, { failed: 1 });
  },
  async exhaust(queue) {
    await queue.add('answer', { n: 1 }, options({ jobId: 'a', priority: 3, attempts: 1 }));
    await worked(queue, async () => { throw new Error('never'); }, { failed: 1 });
  },
  async pause(queue) {
    await queue.pause();
    await queue.add('answer', { n: 1 }, options({ jobId: 'a', priority: 3 }));
    await queue.add('answer', { n: 1 }, options({ jobId: 'b' }));
  },
  async resume(queue) {
    await queue.pause();
    await queue.add('answer', { n: 1 }, options({ jobId: 'a', priority: 3 }));
    await queue.resume();
  },
  async steer(queue) {
    for (const jobId of ['a', 'b']) await queue.add('answer', { n: 1 }, options({ jobId, priority: 3 }));
    await queue.add('answer', { n: 1 }, options({ jobId: 'later', priority: 3, delay: 60_000 }));
    await (await queue.getJob('later')).promote();
    await queue.remove('a');
  },
  async scheduled(queue) {
    const repeat = { pattern: '0 0 1 1 *', tz: 'Europe/Berlin', limit: 5, endDate: Date.UTC(2100, 0, 1) };
    const template = { name: 'answer', data: { n: 1 }, opts: options({ priority: 3 }) };
    await (await queue.upsertJobScheduler('new-year', repeat, template)).promote();
  },
  async schedule(queue) {
    await scenarios.scheduled(queue);
    await worked(queue, async () => ({ ok: 1 }), { completed: 1, delayed: 1 });
  },
  async drain(queue) {
    await queue.add('answer', { n: 1 }, options({ jobId: 'a', priority: 3 }));
    await queue.add('answer', { n: 1 }, options({ jobId: 'b' }));
    await queue.add('answer', { n: 1 }, options({ jobId: 'later', delay: 60_000 }));
    await queue.drain();
  },
};

const shown = (job) => ({
  id: job.id,
  name: job.name,
  data: job.data,
  priority: job.priority,
  attemptsMade: job.attemptsMade,
  attempts: job.opts.attempts,
  failedReason: job.failedReason ?? null,
  returnvalue: job.returnvalue ?? null,
  stacks: job.stacktrace?.length ?? 0,
  processedBy: job.processedBy ?? null,
});

const roles = {
  async scenario(queue) {
    await scenarios[scenarioName](queue);
    say({ done: true });
  },
  async produce(queue) {
    await queue.add('answer', { text: 'grüß dich' }, options({ jobId: 'plain' }));
    await queue.add('answer', { text: 'prio' }, options({ jobId: 'prio', priority: 5 }));
    await queue.add('answer', { text: 'later' }, options({ jobId: 'later', priority: 5, delay: 200 }));
    await queue.addBulk([1, 2].map((n) => ({ name: 'answer', data: { n }, opts: options({ priority: 1 }) })));
    say({ done: true });
  },
  async consume(queue) {
    const seen = [];
    const worker = new Worker(queueName, async (job) => { seen.push(shown(job)); return { by: 'node' }; }, { connection });
    await until(async () => (await queue.getJobCounts()).completed === 3);
    await worker.close();
    say(seen);
  },
  async listen() {
    const events = new QueueEvents(queueName, { connection, lastEventId: '0-0' });
    for (const name of ['completed', 'failed', 'delayed', 'active']) {
      events.on(name, (told) => say({ event: name, jobId: told.jobId, returnvalue: told.returnvalue, reason: told.failedReason }));
    }
    await events.waitUntilReady();
    say({ ready: true });
    await new Promise((resolve) => process.stdin.on('end', resolve).resume());
    await events.close();
  },
  async upsert(queue) {
    const { id, repeat, template } = JSON.parse(scenarioName);
    await queue.upsertJobScheduler(id, repeat, { name: 'answer', data: { n: 1 }, ...template });
    say({ done: true });
  },
  async schedulers(queue) {
    say(await queue.getJobSchedulers());
  },
  async metrics(queue) {
    say({ completed: await queue.getMetrics('completed'), failed: await queue.getMetrics('failed') });
  },
  async due() {
    say(JSON.parse(scenarioName).map(([afterMs, repeat]) => defaultRepeatStrategy(afterMs, repeat)));
  },
  async read(queue) {
    const jobs = await queue.getJobs(['completed', 'failed', 'delayed', 'prioritized', 'wait', 'active']);
    say({ counts: await queue.getJobCounts(), jobs: jobs.map(shown), paused: await queue.isPaused() });
  },
};

const queue = new Queue(queueName, { connection });
await queue.waitUntilReady();
await roles[role](queue);
await queue.close();
