/** A service that hands messages to Replyline: COUNT users write one message each on CHANNEL. */
import 'reflect-metadata';
import { BullModule, InjectQueue } from '@nestjs/bullmq';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { Queue } from 'bullmq';
import { connection } from './redis.js';

@Injectable()
class Inbox {
  constructor(@InjectQueue('incoming-messages') private readonly incomingMessagesQueue: Queue) {}

  async add(user: number, channel: string): Promise<void> {
    await this.incomingMessagesQueue.add(
      'process-message',
      {
        conversationId: user === 0 ? 'test-conv-id' : `test-conv-id-${user}`,
        chatbotId: 'test-bot-id',
        externalUserId: `user-${123 + user}`,
        content: `Hello from ${user}`,
        channel,
      },
      { priority: 1 },
    );
  }
}

@Module({
  imports: [BullModule.forRoot({ connection }), BullModule.registerQueue({ name: 'incoming-messages' })],
  providers: [Inbox],
})
class Producer {}

const app = await NestFactory.createApplicationContext(Producer, { logger: ['error'] });
const inbox = app.get(Inbox);
const count = Number(process.env.COUNT ?? 1);
for (let user = 0; user < count; user += 1) await inbox.add(user, process.env.CHANNEL ?? 'WIDGET');
await app.close();
