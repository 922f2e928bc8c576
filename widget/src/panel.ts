/** The window of the chat: header, messages, composer, and whatever has to be said about the connection. */
import type { Chat } from './chat';
import { createComposer } from './composer';
import { h, iconButton, setText } from './dom';
import { createLog } from './log';
import type { Look } from './look';
import type { Dates, Translate } from './texts';

const NOTICE_MS = 6_000;

export interface PanelOptions {
  chat: Chat;
  t: Translate;
  dates: Dates;
  close: () => void;
}

export interface Panel {
  element: HTMLElement;
  render: (look: Look) => void;
  clear: () => void;
  focus: () => void;
}

export function createPanel({ chat, t, dates, close }: PanelOptions): Panel {
  let noticeTimer: ReturnType<typeof setTimeout> | undefined;
  const notices = h('div', 'notice', { role: 'alert' });
  function notice(text: string): void {
    setText(notices, text);
    clearTimeout(noticeTimer);
    noticeTimer = setTimeout(setText, NOTICE_MS, notices, '');
  }

  const composer = createComposer({ chat, t, notice });
  const log = createLog({ chat, t, dates, notice, preview: composer.preview });
  const avatar = h('span', 'avatar', { 'aria-hidden': 'true' });
  const title = h('h2', 'title', { id: 'title' });
  const subtitle = h('p', 'subtitle');
  const banner = h('div', 'banner', { role: 'status' });
  const element = h(
    'div',
    'panel',
    {
      id: 'panel',
      role: 'dialog',
      'aria-labelledby': 'title',
      ondragover: (event: DragEvent) => {
        if (event.dataTransfer?.types.includes('Files')) event.preventDefault();
      },
      ondrop: (event: DragEvent) => {
        const files = event.dataTransfer?.files;
        if (!files?.length) return;
        event.preventDefault();
        composer.add(files);
      },
    },
    h('header', 'header', {}, avatar, h('div', 'heading', {}, title, subtitle), iconButton('close', 'close', t('Close chat'), close)),
    banner,
    log.element,
    notices,
    composer.element,
  );

  function bannerText(): string {
    if (chat.isRefused) return t('The chat is not available.');
    if (chat.isLost) return t('Connection lost. Reconnecting…');
    const { owner, isOwnerNew } = chat.conversation;
    if (!isOwnerNew || owner === 'BOT') return '';
    return owner === 'NONE' ? t('Nobody can answer right now.') : t('A person has taken over.');
  }

  return {
    element,
    clear: composer.clear,
    focus: () => composer.input.focus({ preventScroll: true }),
    render(look) {
      setText(avatar, look.initial);
      setText(title, look.title);
      setText(subtitle, look.subtitle);
      setText(banner, bannerText());
      composer.render(look);
      log.render(look);
    },
  };
}
