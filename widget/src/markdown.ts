/**
 * The part of Markdown that answers are written in, as a small tree. It is made into DOM nodes one by one (log.ts), so no
 * text can ever become markup. Half-written text, as it streams in, is shown as far as it makes sense.
 */

export type Tag = 'p' | 'strong' | 'em' | 'del' | 'table' | 'tr' | 'th' | 'td' | 'code' | 'pre' | 'a' | 'ul' | 'ol' | 'li' | 'blockquote' | 'hr' | 'br';

export interface Element {
  tag: Tag;
  children: Node[];
  /** Of a link; always http, https or mailto. */
  href?: string;
  /** Of a numbered list: its first number. */
  start?: string | undefined;
}

export type Node = string | Element;

/** Quotes in quotes in lists are cut off here, so that no text can exhaust the stack. */
const MAX_DEPTH = 6;
const MAX_CELLS = 30;
const DASHES = /^ *:?-+:? *$/;

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}#{1,6}\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)(?:[-*+•]|(\d{1,9})[.)])\s+/;

// Each has an upper bound, so that a long text full of loose ends is not searched over and over.
const INLINE = new RegExp(
  [
    /\\(?<escaped>[!-/:-@[-`{-~])/,
    /(?<ticks>`{1,3})(?<code>[^]{1,2000}?)\k<ticks>(?!`)/,
    // A picture is a link to it: whoever reads an answer is not to call other servers by that.
    /!?\[(?<label>[^[\]\n]{1,500})\]\(<?(?<target>(?:[^\s()<>]|\([^\s()<>]*\)){1,2000})>?(?: +"[^"\n]*")?\)/,
    /\*\*(?<bold>\S(?:[^]{0,2000}?\S)?)\*\*(?!\*)/,
    /~~(?<struck>\S(?:[^~]{0,2000}?\S)?)~~(?!~)/,
    /\*(?<italic>[^\s*](?:[^*]{0,2000}?[^\s*])?)\*/,
    // The sentence's punctuation is not the address's, and neither is a bracket that was opened before it.
    /(?<bare>https?:\/\/(?:[^\s<>"()]|\([^\s<>"()]*\)){0,2000}(?:[^\s<>"().,:;!?'*_~\]]|\([^\s<>"()]*\)))/,
  ]
    .map((part) => part.source)
    .join('|'),
  'g',
);

export function parseMarkdown(text: string): Node[] {
  return blocks(text.replace(/\r\n?/g, '\n').replace(/\t/g, '    ').split('\n'), 0);
}

function blocks(lines: string[], depth: number): Node[] {
  const out: Node[] = [];
  let at = 0;

  /** The lines from here on for which it holds. */
  function takeWhile(holds: (line: string) => boolean): string[] {
    const from = at;
    while (at < lines.length && holds(lines[at]!)) at++;
    return lines.slice(from, at);
  }

  while (at < lines.length) {
    const line = lines[at]!;
    const fence = FENCE.exec(line)?.[1];
    const heading = HEADING.exec(line);
    const item = ITEM.exec(line);
    if (!line.trim()) {
      at++;
    } else if (fence) {
      at++;
      const code = takeWhile((other) => !other.trim().startsWith(fence));
      at++;
      out.push({ tag: 'pre', children: [{ tag: 'code', children: [code.join('\n')] }] });
    } else if (heading) {
      at++;
      out.push({ tag: 'p', children: [{ tag: 'strong', children: inline(heading[1]!) }] });
    } else if (line.trim()[0] === '|') {
      out.push(table(takeWhile((other) => other.trim()[0] === '|')));
    } else if (RULE.test(line)) {
      at++;
      out.push({ tag: 'hr', children: [] });
    } else if (QUOTE.test(line) && depth < MAX_DEPTH) {
      const quoted = takeWhile((other) => QUOTE.test(other)).map((other) => other.replace(QUOTE, ''));
      out.push({ tag: 'blockquote', children: blocks(quoted, depth + 1) });
    } else if (item && depth < MAX_DEPTH) {
      out.push(list(item));
    } else {
      at++;
      const rest = takeWhile((other) => other.trim() !== '' && ![FENCE, HEADING, RULE, QUOTE, ITEM].some((begin) => begin.test(other)));
      out.push({ tag: 'p', children: inline([line, ...rest].map((part) => part.trim()).join('\n')) });
    }
  }
  return out;

  function list(first: RegExpExecArray): Element {
    const indent = first[1]!.length;
    const isNumbered = first[2] !== undefined;
    const element: Element = { tag: isNumbered ? 'ol' : 'ul', start: first[2], children: [] };
    for (;;) {
      const marker = ITEM.exec(lines[at] ?? '');
      if (!marker || marker[1]!.length !== indent || (marker[2] !== undefined) !== isNumbered) return element;
      const begin = lines[at++]!.slice(marker[0].length);
      // What is further in belongs to the item, also after an empty line.
      const more = takeWhile((other) => other.trim() === '' || indentOf(other) > indent);
      const inner = Math.min(...more.filter((other) => other.trim()).map(indentOf));
      const content = blocks([begin, ...more.map((other) => other.slice(inner))], depth + 1);
      const head = content[0];
      // The item's own line stands in it without a paragraph around it.
      const isPlain = typeof head === 'object' && head.tag === 'p';
      element.children.push({ tag: 'li', children: isPlain ? [...head.children, ...content.slice(1)] : content });
    }
  }
}

/** Rows of cells; the line of dashes below the first row makes that one the head. Text that is no table yet stands as it is. */
function table(lines: string[]): Element {
  const rows = lines.map((line) => line.trim().replace(/^\||\|$/g, '').split(/(?<!\\)\|/).slice(0, MAX_CELLS));
  if (!rows[1]?.every((cell) => DASHES.test(cell))) return { tag: 'pre', children: [lines.join('\n')] };
  rows.splice(1, 1);
  const cell = (text: string, tag: Tag): Element => ({ tag, children: inline(text.trim().replace(/\\\|/g, '|')) });
  return { tag: 'table', children: rows.map((row, i): Element => ({ tag: 'tr', children: row.map((text) => cell(text, i ? 'td' : 'th')) })) };
}

const indentOf = (line: string): number => line.length - line.trimStart().length;

function inline(text: string, isInLink = false): Node[] {
  const out: Node[] = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    const { escaped, code, label, target, bold, struck, italic, bare } = match.groups!;
    const href = isInLink ? null : safeHref(target ?? bare);
    let node: Node = escaped ?? match[0];
    if (code) node = { tag: 'code', children: [code.replace(/^ (.*) $/, '$1')] };
    else if (bold) node = { tag: 'strong', children: inline(bold, isInLink) };
    else if (struck) node = { tag: 'del', children: inline(struck, isInLink) };
    else if (italic) node = { tag: 'em', children: inline(italic, isInLink) };
    else if (href) node = { tag: 'a', href, children: label ? inline(label, true) : [node] };
    out.push(...withBreaks(text.slice(from, match.index)), node);
    from = match.index + match[0].length;
  }
  return [...out, ...withBreaks(text.slice(from))];
}

function withBreaks(text: string): Node[] {
  return text.split(/ *\n/).flatMap((part, i): Node[] => [...(i ? [{ tag: 'br' as const, children: [] }] : []), ...(part ? [part] : [])]);
}

export function safeHref(url: string | undefined): string | null {
  try {
    const { protocol, href } = new URL(url!);
    return ['http:', 'https:', 'mailto:', 'tel:'].includes(protocol) ? href : null;
  } catch {
    return null;
  }
}
