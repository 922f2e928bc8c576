import { expect, test } from 'vitest';
import { createParser } from '../src/sse';

const STREAM =
  'retry: 3000\r\n\r\n: ping\r\n\r\nid: 4\r\nevent: message.created\r\ndata: {"a":1}\r\n\r\n' +
  'data:one\ndata: two\ndata\n\nevent: typing\n\nunknown: x\ndata:  spaced\r\rdata: ünïcode 🍞\n\ndata: never finished\n';
const EVENTS = [
  ['message.created', '{"a":1}'],
  ['message', 'one\ntwo\n'],
  ['message', ' spaced'],
  ['message', 'ünïcode 🍞'],
];

function parse(pieces: string[]): string[][] {
  const events: string[][] = [];
  const feed = createParser((name, data) => events.push([name, data]));
  pieces.forEach(feed);
  return events;
}

test('events are the same wherever the text is cut', () => {
  expect(parse([STREAM])).toEqual(EVENTS);
  expect(parse([...STREAM])).toEqual(EVENTS);
  for (let cut = 0; cut <= STREAM.length; cut++) expect(parse([STREAM.slice(0, cut), '', STREAM.slice(cut)])).toEqual(EVENTS);
});

test('an event is told when its empty line is there, not with the next event', () => {
  expect(parse(['data: a\n\n'])).toEqual([['message', 'a']]);
  expect(parse(['data: a\r\n\r\n'])).toEqual([['message', 'a']]);
});
