import { expect, test } from 'vitest';
import { parseMarkdown } from '../src/markdown';
import type { Node } from '../src/markdown';

/** The tree as it would look in HTML, for reading; nothing like it is in the widget. */
function show(nodes: Node[]): string {
  return nodes
    .map((node) => {
      if (typeof node === 'string') return node.replace(/</g, '&lt;');
      const { tag, href, start, children } = node;
      if (tag === 'br' || tag === 'hr') return `<${tag}>`;
      return `<${tag}${href ? ` ${href}` : ''}${start && start !== '1' ? ` ${start}` : ''}>${show(children)}</${tag}>`;
    })
    .join('');
}

const md = (text: string): string => show(parseMarkdown(text));

test.each([
  ['one\ntwo\n\nthree', '<p>one<br>two</p><p>three</p>'],
  ['a\r\nb', '<p>a<br>b</p>'],
  ['**bold** and *italic* and ***both***', '<p><strong>bold</strong> and <em>italic</em> and <strong><em>both</em></strong></p>'],
  ['2 * 3 * 4 and **loose and *ends', '<p>2 * 3 * 4 and **loose and *ends</p>'],
  ['snake_case_name', '<p>snake_case_name</p>'],
  ['`a **b**` ``c ` d``', '<p><code>a **b**</code> <code>c ` d</code></p>'],
  ['\\*not italic\\*', '<p>*not italic*</p>'],
  ['# Title\ntext', '<p><strong>Title</strong></p><p>text</p>'],
  ['a\n\n---\n\nb', '<p>a</p><hr><p>b</p>'],
  ['> a\n> b\n>\n> c\n\nd', '<blockquote><p>a<br>b</p><p>c</p></blockquote><p>d</p>'],
  ['- a\n- b\n* c', '<ul><li>a</li><li>b</li><li>c</li></ul>'],
  ['3. a\n4. b', '<ol 3><li>a</li><li>b</li></ol>'],
  ['1. a\n   - b\n     more\n   - c\n2. d', '<ol><li>a<ul><li>b<br>more</li><li>c</li></ul></li><li>d</li></ol>'],
  ['1. a\n\n   text\n\n2. b', '<ol><li>a<p>text</p></li><li>b</li></ol>'],
  ['~~9 dollars~~ 7 dollars ~~loose', '<p><del>9 dollars</del> 7 dollars ~~loose</p>'],
  ['| a | b |\n|---|:-:|\n| **c** | d \\| e |\nafter', '<table><tr><th>a</th><th>b</th></tr><tr><td><strong>c</strong></td><td>d | e</td></tr></table><p>after</p>'],
  ['| half | a', '<pre>| half | a</pre>'],
  ['text\n- a', '<p>text</p><ul><li>a</li></ul>'],
  ['```js\nlet a = **1**;\n\n<b>\n```\nafter', '<pre><code>let a = **1**;\n\n&lt;b></code></pre><p>after</p>'],
  ['```\nunfinished', '<pre><code>unfinished</code></pre>'],
])('%j', (text, tree) => expect(md(text)).toBe(tree));

test.each([
  ['[t](https://example.com/a_(b)?c=*d*)', '<p><a https://example.com/a_(b)?c=*d*>t</a></p>'],
  ['[t](mailto:a@example.com "title")', '<p><a mailto:a@example.com>t</a></p>'],
  ['[**t**](http://example.com)', '<p><a http://example.com/><strong>t</strong></a></p>'],
  ['![a cake](https://example.com/c.png)', '<p><a https://example.com/c.png>a cake</a></p>'],
  ['(see https://example.com/a.)', '<p>(see <a https://example.com/a>https://example.com/a</a>.)</p>'],
  ['https://en.example.org/Bread_(food)!', '<p><a https://en.example.org/Bread_(food)>https://en.example.org/Bread_(food)</a>!</p>'],
  ['**https://example.com**', '<p><strong><a https://example.com/>https://example.com</a></strong></p>'],
])('links: %j', (text, tree) => expect(md(text)).toBe(tree));

test.each([
  '[t](javascript:alert(1))',
  '[t](JaVaScRiPt:alert(1))',
  '[t](java\nscript:alert(1))',
  '[t](data:text/html,x)',
  '[t](//example.com)',
  '[t](/path)',
  '[t](https://)',
  '<a href="javascript:1">x</a>',
  '<img src=x onerror=alert(1)>',
])('no link comes of %j', (text) => {
  expect(md(text)).not.toContain('<a ');
  expect(md(text)).not.toContain('<img');
});

test('a link in the text of a link is no link', () => {
  expect(md('[see https://example.com](https://example.org)')).toBe('<p><a https://example.org/>see https://example.com</a></p>');
});

test('hostile texts neither take long nor break it', () => {
  const texts = ['*a ', '**a ', '`', '``` ', '[', '[a](', '> ', '- ', '  - ', '\\', 'https://(', '1. ', '((', '* * '];
  for (const text of texts) {
    const began = performance.now();
    parseMarkdown(text.repeat(20_000 / text.length));
    expect(performance.now() - began, text).toBeLessThan(500);
  }
  parseMarkdown(`${'> '.repeat(5_000)}a`);
  parseMarkdown(Array.from({ length: 500 }, (_, i) => `${' '.repeat(i * 2)}- a`).join('\n'));
});

test('every beginning of an answer can be shown', () => {
  const text = 'Hello **you**:\n\n1. `a`\n   - [b](https://example.com)\n\n> c\n\n```\nd\n```\n';
  for (let end = 0; end <= text.length; end++) expect(() => parseMarkdown(text.slice(0, end))).not.toThrow();
});
