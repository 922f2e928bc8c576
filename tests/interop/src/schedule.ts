/** A job scheduler on `incoming-messages`: begins one that fires EVERY milliseconds, or, without EVERY, removes it. */
import { Queue } from 'bullmq';
import { connection } from './redis.js';

const queue = new Queue('incoming-messages', { connection });
const every = Number(process.env.EVERY ?? 0);
if (every > 0) {
  await queue.upsertJobScheduler(
    'remind',
    { every },
    {
      name: 'process-message',
      data: {
        conversationId: 'test-conv-id',
        chatbotId: 'test-bot-id',
        externalUserId: 'user-123',
        content: 'What is due today?',
        channel: 'WIDGET',
        messageId: 'the-same-in-each',
      },
    },
  );
} else {
  await queue.removeJobScheduler('remind');
}
await queue.close();
