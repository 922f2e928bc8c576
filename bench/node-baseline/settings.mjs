// What both processes share: addresses from the environment, BullMQ's options as the brief has them, one pool of connections.
import { Redis } from 'ioredis';
import { Queue } from 'bullmq';
import pg from 'pg';

export const CONCURRENCY = Number(process.env.CONCURRENCY ?? 50);
export const AI_CONCURRENCY = Number(process.env.AI_CONCURRENCY ?? 1000);
export const connection = () =>
  new Redis({ path: process.env.REDIS_URL, db: Number(process.env.REDIS_DB ?? 0), maxRetriesPerRequest: null });
// node-postgres reads a socket folder as host, which a URL cannot hold as libpq's do.
const address = (url) => {
  const { username, pathname, searchParams } = new URL(url.replace('@/', '@localhost/'));
  return { user: username, database: pathname.slice(1), host: searchParams.get('host'), port: Number(searchParams.get('port')) };
};
export const pool = new pg.Pool({ ...address(process.env.DATABASE_URL), max: Number(process.env.POOL ?? 20) });

const defaultJobOptions = {
  attempts: 4,
  backoff: { type: 'exponential', delay: 1000 },
  removeOnComplete: { age: 3600 },
  removeOnFail: { age: 86400 },
};
const shared = connection();
export const queue = (name) => new Queue(name, { connection: shared, defaultJobOptions });

export async function transaction(work) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}
