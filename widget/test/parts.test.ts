import { expect, test } from 'vitest';
import { contrast, palette } from '../src/color';
import { lookOf } from '../src/look';
import { OUTBOX_LIMIT, createOutbox } from '../src/outbox';
import type { OutboxItem } from '../src/outbox';
import { backoff, createPause } from '../src/pause';
import { createStorage } from '../src/storage';
import { createDates, createTranslate, formatSize } from '../src/texts';
import { uuid } from '../src/uuid';

class FakeStorage {
  kept = new Map<string, string>();
  isFull = false;
  getItem = (key: string): string | null => this.kept.get(key) ?? null;
  removeItem = (key: string): void => void this.kept.delete(key);
  setItem(key: string, value: string): void {
    if (this.isFull) throw new Error('QuotaExceededError');
    this.kept.set(key, value);
  }
}

const item = (client_id: string, more: Partial<OutboxItem> = {}): OutboxItem => ({
  client_id,
  text: client_id,
  attachments: [],
  created_at: '2026-11-24T12:00:00Z',
  state: 'sending',
  reason: '',
  owner: null,
  ...more,
});

test('storage outlives the page, and where there is none it lasts as long as the page', () => {
  const backing = new FakeStorage();
  createStorage('site_1', () => backing).set('visitor', 'v');
  expect(createStorage('site_1', () => backing).get('visitor')).toBe('v');
  expect(createStorage('site_2', () => backing).get('visitor')).toBeNull();

  const storage = createStorage('site_1', () => backing);
  backing.isFull = true;
  storage.set('visitor', 'w');
  expect(storage.get('visitor')).toBe('w');

  const none = createStorage('site_1', () => {
    throw new Error('SecurityError');
  });
  expect(none.get('visitor')).toBeNull();
  none.set('visitor', 'v');
  expect(none.get('visitor')).toBe('v');
  none.set('visitor', null);
  expect(none.get('visitor')).toBeNull();
});

test('the outbox keeps the order, is bounded, and is one for all tabs', () => {
  const backing = new FakeStorage();
  const [one, other] = [createOutbox(createStorage('s', () => backing)), createOutbox(createStorage('s', () => backing))];
  for (let i = 0; i < OUTBOX_LIMIT; i++) expect((i % 2 ? one : other).add(item(`m${i}`))).toBe(true);
  expect(one.add(item('too many'))).toBe(false);
  expect(one.next()?.client_id).toBe('m0');
  other.remove('m0');
  one.change('m1', { state: 'refused', reason: 'no' });
  expect(other.next()?.client_id).toBe('m2');
  one.clear();
  expect(other.all()).toEqual([]);
  backing.kept.set('replyline:s:outbox', '{broken');
  expect(one.all()).toEqual([]);
});

test("another known user's messages are dropped, a stranger's go along", () => {
  const backing = new FakeStorage();
  const outbox = createOutbox(createStorage('s', () => backing));
  outbox.add(item('a', { owner: 'conversation 1' }));
  outbox.add(item('b'));
  outbox.add(item('c', { owner: 'conversation 2' }));
  expect([outbox.dropOfOthers('conversation 2'), outbox.dropOfOthers('conversation 2')]).toEqual([true, false]);
  expect(outbox.all().map((one) => one.client_id)).toEqual(['b', 'c']);
});

test('the backoff is between half a second and 15 seconds, and spread', () => {
  expect(backoff(0, () => 0)).toBe(500);
  expect(backoff(0, () => 1)).toBe(1000);
  expect(backoff(3, () => 0)).toBe(4000);
  expect(backoff(100, () => 1)).toBe(15_000);
});

test('a pause can be ended, but not one that the server asked for', async () => {
  const pause = createPause();
  const began = performance.now();
  const waiting = pause.wait(5_000);
  pause.wake();
  await waiting;
  const firm = pause.wait(60, true);
  pause.wake();
  await firm;
  expect(performance.now() - began).toBeGreaterThan(50);
  expect(performance.now() - began).toBeLessThan(2_000);
});

/** The exact WCAG 2 contrast, which the widget's own comes near to. */
function wcag(a: number[], b: number[]): number {
  const [x, y] = [a, b].map((rgb) => {
    const [r, g, bl] = rgb.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4)) as [number, number, number];
    return 0.2126 * r + 0.7152 * g + 0.0722 * bl + 0.05;
  }) as [number, number];
  return Math.max(x / y, y / x);
}

test('every accent can be read: as a ground and as the colour of text, light and dark', () => {
  const hex = (n: number): number[] => [n >> 16, (n >> 8) & 255, n & 255];
  for (let n = 0; n <= 0xffffff; n += 0x030b17) {
    const color = `#${n.toString(16).padStart(6, '0')}`;
    for (const isDark of [false, true]) {
      const made = palette(color, isDark);
      expect(wcag(hex(n), made['--on-accent'] === '#fff' ? [255, 255, 255] : [0, 0, 0]), color).toBeGreaterThanOrEqual(4.5);
      const text = made['--accent-text'].match(/\d+/g)!.map(Number);
      for (const ground of isDark ? [0x272a31, 0x191b20] : [0xf1f3f6, 0xffffff]) {
        expect(wcag(text, hex(ground)), `${color} ${isDark}`).toBeGreaterThanOrEqual(4.5);
      }
    }
  }
});

test('only #rgb and #rrggbb are colours', () => {
  const standard = palette(null, false);
  for (const color of ['red', '#12', '#12345', 'url(x)', '#fff;background:url(x)', '#fff\n', 'var(--x)']) expect(palette(color, false)).toEqual(standard);
  expect(palette('#0a7', false)['--accent']).toBe('#0a7');
  expect(contrast([0, 0, 0], [255, 255, 255])).toBeCloseTo(21);
});

test('what the page says goes before what the server says', () => {
  const t = createTranslate('en', null);
  const config = {
    title: 'Server',
    subtitle: 'sub',
    greeting: null,
    placeholder: null,
    color: '#123456',
    theme: 'dark',
    position: 'left',
    uploads: true,
    upload_max_bytes: 10,
    upload_types: ['image/png'],
    max_chars: 100,
  };
  const options: Record<string, string> = { title: ' ünder page', greeting: '' };
  const look = lookOf(config, (name) => options[name] ?? null, t);
  expect(look).toMatchObject({ title: ' ünder page', initial: 'Ü', greeting: '', placeholder: 'Write a message…', theme: 'dark', max_chars: 100 });
  expect(lookOf(config, () => null, t).greeting).toBe('How can we help?');
  expect(lookOf(null, () => null, t)).toMatchObject({ title: 'Chat with us', greeting: null, uploads: false });
});

test('words: English, German, and the page’s own', () => {
  expect(createTranslate('en-GB', null)('Send')).toBe('Send');
  expect(createTranslate('de-AT', null)('Send')).toBe('Senden');
  expect(createTranslate('fr', '{"Send":"Envoyer"}')('Send')).toBe('Envoyer');
  expect(createTranslate('fr', '{broken')('Send')).toBe('Send');
});

test('days and times, also where the page has a language that there is not', () => {
  const dates = createDates('de');
  const ago = (days: number): Date => new Date(new Date().setHours(12) - days * 864e5);
  expect([dates.day(ago(0)), dates.day(ago(1))]).toEqual(['Heute', 'Gestern']);
  expect(dates.day(ago(5))).toMatch(/^[A-Z]/);
  expect(dates.time(new Date(2026, 10, 24, 9, 5))).toBe('09:05');
  for (const language of ['', 'en_US', 'x', '!!', 'en-GB']) expect(createDates(language).time(new Date())).toMatch(/\d/);
});

test('sizes and ids', () => {
  expect([formatSize(1), formatSize(123_456), formatSize(4_000_000)]).toEqual(['1 kB', '124 kB', '4.0 MB']);
  expect(uuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(new Set(Array.from({ length: 500 }, uuid)).size).toBe(500);
});
