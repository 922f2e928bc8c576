// The reference: BullMQ for Node, from the packages that the conformance tests install.
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';

const require = createRequire(`${process.env.BULLMQ_HOME}/package.json`);
const { Queue, Worker } = require('bullmq');

const [role, url, countText, concurrencyText, rateText] = process.argv.slice(2);
const load = JSON.parse(process.env.BENCH_LOAD);
const [count, concurrency, rate] = [countText, concurrencyText, rateText].map(Number);
const { hostname: host, port, pathname } = new URL(url);
const connection = { host, port: Number(port), db: Number(pathname.slice(1) || 0), maxRetriesPerRequest: null };
const options = {
  attempts: load.attempts,
  backoff: { type: 'exponential', delay: 1000 },
  removeOnComplete: { age: load.keepCompletedS },
  removeOnFail: { age: load.keepFailedS },
  priority: load.priority,
};
const say = (measured = {}) => process.stdout.write(`${JSON.stringify({ seconds: 0, cpu_s: 0, late_ms: [], ...measured })}\n`);
const now = () => performance.timeOrigin + performance.now();

function meter() {
  const began = performance.now();
  const cpu = process.cpuUsage();
  return () => {
    const used = process.cpuUsage(cpu);
    return { seconds: (performance.now() - began) / 1000, cpu_s: (used.user + used.system) / 1e6 };
  };
}

async function enqueue(queue) {
  let next = 0;
  const producer = async () => {
    while (next < count) await queue.add('work', load.payload, { ...options, jobId: `job-${next++}` });
  };
  await queue.waitUntilReady();
  const read = meter();
  await Promise.all(Array.from({ length: load.inFlight }, producer));
  say(read());
}

async function pace(queue) {
  await queue.waitUntilReady();
  const adding = [];
  const began = performance.now();
  for (let number = 0; number < count; number++) {
    const left = began + (number * 1000) / rate - performance.now();
    if (left > 0) await new Promise((resolve) => setTimeout(resolve, left));
    adding.push(queue.add('work', { ...load.payload, at: now() }, { ...options, jobId: `job-${number}` }));
  }
  await Promise.all(adding);
  say();
}

async function work() {
  const late = [];
  let handled = 0;
  let read;
  const done = new Promise((resolve) => {
    const handler = async (job) => {
      read ??= meter();
      if (role === 'listen') late.push(now() - job.data.at);
      if (++handled === count) {
        say(read());
        resolve();
      }
    };
    work.worker = new Worker(load.queue, handler, { connection, concurrency });
  });
  await work.worker.waitUntilReady();
  if (role === 'listen') say();
  await done;
  await work.worker.close();
  say({ late_ms: late });
}

if (role === 'drain' || role === 'listen') {
  await work();
} else {
  const queue = new Queue(load.queue, { connection });
  await (role === 'enqueue' ? enqueue(queue) : pace(queue));
  await queue.close();
}
