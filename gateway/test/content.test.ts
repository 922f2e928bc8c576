/** What messages say: the examples that the adapter of Evolution API must read alike (tests/evolution/test_content.py). */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { proto } from 'baileys';
import { saidIn } from '../src/content.js';

interface Example {
  name: string;
  message: Record<string, unknown>;
  said: object | null;
}

const FILE = fileURLToPath(new URL('../../test/messages.json', import.meta.url));
const EXAMPLES = JSON.parse(fs.readFileSync(FILE, 'utf8')) as Example[];

for (const { name, message, said } of EXAMPLES) {
  test(`what is said by: ${name}`, () => {
    assert.deepEqual(saidIn(proto.Message.fromObject(message)), said);
  });
}
