/** A worker of a team's own that sends by WhatsApp in place of Replyline's, by HTTP POST to PROVIDER_URL. */
import 'reflect-metadata';
import { BullModule, Processor, WorkerHost } from '@nestjs/bullmq';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { Job } from 'bullmq';
import { connection } from './redis.js';

interface Send {
  to: string;
  content: string;
  channelExternalId: string;
  messageId: string;
}

// A short lock, so that the jobs of a killed worker are taken again soon; BullMQ's own are 30 s.
const options = { name: 'nest', concurrency: 5, lockDuration: 2000, stalledInterval: 1000, maxStalledCount: 2 };

@Processor('whatsapp-qr-send', options)
class QrSender extends WorkerHost {
  async process(job: Job<Send>): Promise<{ externalId: string }> {
    const { to, content, channelExternalId, messageId } = job.data;
    const response = await fetch(process.env.PROVIDER_URL ?? '', {
      method: 'POST',
      // Called again for the same job, the provider sends nothing a second time.
      headers: { 'content-type': 'application/json', 'idempotency-key': messageId },
      body: JSON.stringify({ session: channelExternalId, to, text: content, job: job.id }),
      signal: AbortSignal.timeout(10_000),
    });
    if (!response.ok) throw new Error(`the provider answered ${response.status}`);
    const sent = (await response.json()) as { id: string };
    return { externalId: sent.id };
  }
}

@Module({
  imports: [BullModule.forRoot({ connection }), BullModule.registerQueue({ name: 'whatsapp-qr-send' })],
  providers: [QrSender],
})
class Consumer {}

const app = await NestFactory.createApplicationContext(Consumer, { logger: ['error'] });
app.enableShutdownHooks();
console.log('ready');
