/** The demo's routes, and what the page needs to know about them. */

const DEADLINE_MS = 15_000;

/** What the server, or the way to it, said. `status` is 0 where nobody answered. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const setup = () => call('GET', '/demo/setup');

/** Gives `{messageId, externalId}`. */
export const write = (phone, person, text) => call('POST', `/demo/phones/${phone}/messages`, { person, text });

export const breakSomething = (kind) => call('POST', '/demo/faults', { kind });

export const killWorker = () => call('POST', '/demo/worker/kill');
export const wipeRedis = () => call('POST', '/demo/redis/wipe');
export const replay = (job) => call('POST', `/demo/dead-letters/${job}/replay`);

export function live(person, message) {
  const query = new URLSearchParams({ person, ...(message && { message }) });
  return call('GET', `/demo/live?${query}`);
}

/** A telephone number for this browser, which keeps it: reloading the page comes back to the same conversations. */
export function personOfThisBrowser() {
  const known = stored('replyline-demo-person');
  if (/^49151\d{8}$/.test(known ?? '')) return known;
  const digits = crypto.getRandomValues(new Uint32Array(1))[0] % 100_000_000;
  const person = `49151${String(digits).padStart(8, '0')}`;
  store('replyline-demo-person', person);
  return person;
}

/** Some browsers forbid storage; then the page forgets. */
export function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function store(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // forgotten
  }
}

async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      cache: 'no-store',
      signal: AbortSignal.timeout(DEADLINE_MS),
      ...(body && { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }),
    });
  } catch {
    throw new ApiError('Replyline does not answer', 0);
  }
  const isJson = response.headers.get('content-type')?.includes('json');
  const answer = isJson ? await response.json().catch(() => null) : null;
  if (!response.ok) throw new ApiError(answer?.detail ?? answer?.title ?? `Replyline answered ${response.status}`, response.status);
  return answer;
}
