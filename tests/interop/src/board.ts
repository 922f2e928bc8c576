/** bull-board over the queues named by QUEUES, on a free port of loopback, which it prints. */
import type { AddressInfo } from 'node:net';
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { ExpressAdapter } from '@bull-board/express';
import { Queue } from 'bullmq';
import express from 'express';
import { connection } from './redis.js';

const serverAdapter = new ExpressAdapter();
const names = (process.env.QUEUES ?? '').split(',');
createBullBoard({ queues: names.map((name) => new BullMQAdapter(new Queue(name, { connection }))), serverAdapter });

const app = express();
app.use(serverAdapter.getRouter());
const server = app.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
