/** The file that is committed: it is what the sources make, small enough, and without a way from text to markup or code. */
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { build } from 'vite';
import { expect, test } from 'vitest';

const built = readFileSync(new URL('../../replyline/web/static/widget.js', import.meta.url), 'utf8');

test('it is what the sources make', async () => {
  const made = await build({ root: new URL('..', import.meta.url).pathname, mode: 'production', logLevel: 'silent', build: { write: false } });
  const [{ output }] = made as unknown as [{ output: [{ code: string }] }];
  expect(output[0].code === built, 'run `npm run build`').toBe(true);
});

test('it is under 17,000 bytes gzipped', () => {
  expect(gzipSync(built).length).toBeLessThan(17_000);
});

test.each([/innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser/, /\beval\(|new Function/, /sourceMappingURL/, /setAttribute\(.style/, /@import|url\(/])(
  'there is no %s in it',
  (forbidden) => expect(built).not.toMatch(forbidden),
);
