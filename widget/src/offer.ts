/** What a message of the business is besides its words: buttons, a list, a picture or another file. */
import { button, h, set } from './dom';
import { icon } from './icons';
import { safeHref } from './markdown';
import type { Translate } from './texts';
import type { Content, Option } from './wire';

interface Options {
  element: HTMLElement;
  /** Shows which one was chosen; from then on none can be pressed. */
  mark: (chosen?: string) => void;
}

export function optionsOf({ type, text, label, sections }: Content, press: (option: Option) => void): Options {
  const buttons = new Map<string, HTMLButtonElement>();
  const option = (one: Option): HTMLElement => {
    const words = h('span', 'words', {}, h('b', '', {}, one.title), one.description ?? '');
    const element = button('option', () => press(one), { dir: 'auto' }, words, icon('check'));
    buttons.set(one.id, element);
    return element;
  };
  const group = (name: string, title: string | null, ...children: Node[]): HTMLElement =>
    h('div', name, { role: 'group', 'aria-label': title, dir: 'auto' }, ...children);
  const parts = sections.flatMap(({ title, options }): Node[] =>
    title ? [group('section', title, h('div', 'section-title', { 'aria-hidden': 'true' }, title), ...options.map(option))] : options.map(option),
  );
  if (label) parts.unshift(h('div', 'label', { 'aria-hidden': 'true' }, label));
  return {
    element: group(`${type} options`, label ?? text, ...parts),
    mark(chosen) {
      for (const [id, element] of buttons) {
        set(element, 'disabled', chosen !== undefined);
        set(element, 'aria-pressed', chosen === id && 'true');
      }
    },
  };
}

/** A picture that can be had safely is shown; all else is a link, which calls nobody by itself. */
export function fileOf({ text, file }: Content, t: Translate): Node {
  const { kind, url, name } = file!;
  const href = safeHref(url);
  if (!href) return document.createTextNode(url);
  const { protocol, hostname, pathname } = new URL(href);
  const link = { href, target: '_blank', rel: 'noopener noreferrer nofollow' };
  const chip = (): HTMLElement => {
    const title = name || pathname.split('/').pop() || hostname;
    return h('a', 'file', link, icon('file'), h('span', 'name', {}, h('b', '', {}, title), hostname), icon('download'));
  };
  if (protocol !== 'https:' || (kind !== 'image' && kind !== 'sticker')) return chip();
  // Also a page whose policy allows no pictures of others shows the link.
  const picture = h('img', 'picture', { loading: 'lazy', referrerpolicy: 'no-referrer', alt: text || name || t('Picture'), src: href });
  const element = h('a', 'frame', link, picture);
  picture.addEventListener('error', () => element.replaceWith(chip()));
  return element;
}
