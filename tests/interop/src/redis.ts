/** What every part of this application connects with. */
const url = new URL(process.env.REDIS_URL ?? 'redis://127.0.0.1:6379');

export const connection =
  url.protocol === 'unix:'
    ? { path: decodeURIComponent(url.pathname), db: Number(url.searchParams.get('db') ?? 0) }
    : { host: url.hostname, port: Number(url.port || 6379), db: Number(url.pathname.slice(1) || 0) };
