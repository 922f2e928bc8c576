/** The messages on the screen: one element for each row, kept and moved for as long as the row is there. */
import type { Chat } from './chat';
import { button, h, set, setText } from './dom';
import { icon } from './icons';
import type { Look } from './look';
import { renderMarkdown } from './markup';
import { fileOf, optionsOf } from './offer';
import { rowsOf } from './rows';
import type { Row } from './rows';
import { formatSize } from './texts';
import type { Dates, Translate } from './texts';
import type { Attachment } from './wire';

/** So near to the end the reader counts as being at it. */
const AT_END_PX = 60;
/** So near to the top more is asked for, so that it is there before it is missed. */
const EARLY_PX = 200;

const NAMES = { user: 'You', assistant: 'Assistant', agent: 'Team' } as const;

interface Shown {
  item: HTMLElement;
  avatar: HTMLElement;
  body: HTMLElement;
  meta: HTMLElement;
  /** Shows which option was chosen. */
  mark: (chosen?: string) => void;
  /** What the body and the line under it were made of. */
  content: string;
  status: string;
}

export interface LogOptions {
  chat: Chat;
  t: Translate;
  dates: Dates;
  /** The picture of an own attachment, while this page still has it. */
  preview: (id: string) => string | undefined;
  notice: (text: string) => void;
}

export interface Log {
  element: HTMLElement;
  render: (look: Look) => void;
}

export function createLog({ chat, t, dates, preview, notice }: LogOptions): Log {
  const list = h('div', 'log', { role: 'log', 'aria-live': 'polite', 'aria-relevant': 'additions', 'aria-label': t('Messages') });
  // What is being written stands outside of the log: it is read out when it is complete and moves in, not word by word.
  const tail = h('div', 'tail');
  const content = h('div', 'content', {}, list, tail);
  const scroller = h('div', 'scroll', { tabindex: '0', role: 'region', 'aria-label': t('Messages') }, content);
  const jump = button('jump', toEnd, { hidden: true }, t('New messages'), icon('down'));
  const element = h('div', 'messages', {}, scroller, jump);

  const shown = new Map<string, Shown>();
  let isAtEnd = true;
  let firstKey: string | undefined;
  let lastKey: string | undefined;
  let lastOwn: string | undefined;

  scroller.addEventListener('scroll', () => {
    isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < AT_END_PX;
    if (isAtEnd) jump.hidden = true;
    if (scroller.scrollTop < EARLY_PX) void chat.loadOlder();
  });
  // Pictures that have come, a keyboard that has risen: who was at the end stays there.
  const observer = new ResizeObserver(() => isAtEnd && toEnd());
  observer.observe(scroller);
  observer.observe(content);

  function toEnd(): void {
    isAtEnd = true;
    jump.hidden = true;
    scroller.scrollTop = scroller.scrollHeight;
  }

  function render(look: Look): void {
    const rows = rowsOf(chat.conversation, look.greeting);
    const first = rows[0]?.key;
    const last = rows.at(-1);
    const own = chat.conversation.pending.at(-1)?.client_id;
    // What is put in above must not move what is being read, and is old news to whoever listens.
    const isHistory = first !== firstKey;
    const fromEnd = scroller.scrollHeight - scroller.scrollTop;

    set(list, 'aria-live', isHistory ? 'off' : 'polite');
    place(rows, look.initial, isHistory);

    if (isAtEnd || (own && own !== lastOwn)) toEnd();
    else if (isHistory) scroller.scrollTop = scroller.scrollHeight - fromEnd;
    else if (last?.text && last.key !== lastKey && last.author !== 'user') jump.hidden = false;
    firstKey = first;
    lastKey = last?.key;
    lastOwn = own;
    // Too little to scroll in means that nobody can scroll up to ask for more.
    if (scroller.clientHeight && scroller.scrollHeight <= scroller.clientHeight) void chat.loadOlder();
  }

  function place(rows: Row[], initial: string, isHistory: boolean): void {
    const gone = new Map(shown);
    let before: Element | undefined;
    for (const row of rows) {
      gone.delete(row.key);
      const parent = row.state === 'streaming' ? tail : list;
      const known = shown.get(row.key);
      const { item, avatar } = known ?? create(row);
      if (!known && !isHistory) item.classList.add('enter');
      setText(avatar, initial);
      update(shown.get(row.key)!, row);
      const next: Element | null = before?.parentNode === parent ? before.nextElementSibling : parent.firstElementChild;
      if (next !== item) {
        // What is only moved does not enter again.
        if (known) item.classList.remove('enter');
        parent.insertBefore(item, next);
      }
      before = item;
    }
    for (const [key, { item }] of gone) {
      item.remove();
      shown.delete(key);
    }
  }

  function create(row: Row): Shown {
    const avatar = h('span', 'avatar', { 'aria-hidden': 'true' });
    const body = h('div', 'body');
    const meta = h('div', 'meta');
    const stack = h('div', 'stack', {}, h('span', 'hidden', {}, `${t(NAMES[row.author])}: `), body, meta);
    const item = h('div', `${row.author === 'user' ? 'own' : 'other'} message`, { 'data-author': row.author }, avatar, stack);
    if (row.key === 'typing') {
      set(item, 'part', row.key);
      set(item, 'data-testid', row.key);
    }
    const made = { item, avatar, body, meta, mark: () => {}, content: '', status: '' };
    shown.set(row.key, made);
    return made;
  }

  function update(its: Shown, row: Row): void {
    const { item, body, meta } = its;
    const { state, attachments } = row;
    const offer = row.content;
    const text = offer?.text ?? row.text;
    const isOwn = row.author === 'user';
    const isUnsent = state === 'sending' || state === 'waiting' || state === 'refused';
    set(item, 'data-id', row.id);
    set(item, 'data-state', state);
    set(item, 'data-day', row.isNewDay && dates.day(row.at));
    set(item, 'aria-busy', state === 'streaming' && 'true');
    item.classList.toggle('first', row.isFirst);
    item.classList.toggle('last', row.isLast || isUnsent);

    const content = text + JSON.stringify([attachments, offer]);
    if (its.content !== content) {
      its.content = content;
      body.replaceChildren(...attachments.map(attachment));
      if (text) {
        const said: (Node | string)[] = isOwn ? [text] : renderMarkdown(text);
        if (offer?.header) said.unshift(h('p', '', {}, h('strong', '', {}, offer.header)));
        if (offer?.footer) said.push(h('p', 'footer', {}, offer.footer));
        body.prepend(h('div', 'bubble', { dir: 'auto' }, ...said));
      }
      else if (state === 'streaming') body.append(h('div', 'bubble dots', {}, h('i'), h('i'), h('i'), h('span', 'hidden', {}, t('Writing…'))));
      if (offer?.file) body.prepend(fileOf(offer, t));
      if (offer?.sections.length) {
        const options = optionsOf(offer, ({ id, title }) => {
          if (!chat.send(title, [], { message_id: row.id, option_id: id })) return notice(t('Connection lost. Reconnecting…'));
          // The button that had the focus is disabled now.
          scroller.focus();
        });
        body.append(options.element);
        its.mark = options.mark;
      }
    }

    its.mark(row.chosen);

    const status = state + row.reason + row.isNewestOwn;
    if (its.status === status) return;
    its.status = status;
    if (state === 'refused') {
      meta.replaceChildren(
        h('span', 'reason', { role: 'alert' }, `${t('Not sent.')} ${row.reason}`),
        button('retry', () => (chat.retry(row.key), scroller.focus()), {}, t('Try again')),
        button('discard', () => (chat.discard(row.key), scroller.focus()), {}, t('Discard')),
      );
    } else if (isUnsent) {
      meta.replaceChildren(icon('clock'), t(state === 'sending' ? 'Sending…' : 'Not sent yet. It will be sent when you are back.'));
    } else {
      // The greeting was never written, so it has no time.
      const time = row.key !== 'greeting' && state !== 'streaming' && dates.time(row.at);
      const sent = row.isNewestOwn && t('Sent');
      setText(meta, [!isOwn && t(NAMES[row.author]), time, sent].filter(Boolean).join(' · '));
    }
  }

  function attachment(file: Attachment): HTMLElement {
    const src = preview(file.id);
    if (!src) return chip(file);
    // A page that allows no blob: pictures shows it as a file.
    const picture = h('img', 'picture', { src, alt: file.name, onerror: () => picture.replaceWith(chip(file)) });
    return picture;
  }

  function chip(file: Attachment): HTMLElement {
    const name = h('span', 'name', {}, h('b', '', {}, file.name), formatSize(file.size));
    const element = button('file', () => void download(), { title: file.name }, icon('file'), name, icon('download'));
    async function download(): Promise<void> {
      set(element, 'aria-busy', 'true');
      try {
        const href = URL.createObjectURL(await chat.download(file));
        h('a', '', { href, download: file.name }).click();
        setTimeout(() => URL.revokeObjectURL(href), 60_000);
      } catch {
        notice(t('That failed.'));
      }
      set(element, 'aria-busy', null);
    }
    return element;
  }

  return { element, render };
}
