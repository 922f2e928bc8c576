/** The tree of an answer's Markdown as DOM nodes. */
import { h } from './dom';
import { parseMarkdown } from './markdown';
import type { Node as Part } from './markdown';

export function renderMarkdown(text: string): Node[] {
  return parseMarkdown(text).map(toNode);
}

function toNode(part: Part): Node {
  if (typeof part === 'string') return document.createTextNode(part);
  const { tag, href, start, children } = part;
  const link = href && { href, title: href, target: '_blank', rel: 'noopener noreferrer nofollow' };
  // What can be scrolled must be reached by the keyboard.
  const element = h(tag, '', link || { start, tabindex: tag === 'pre' && '0' }, ...children.map(toNode));
  return tag === 'table' ? h('div', 'table', { tabindex: '0' }, element) : element;
}
