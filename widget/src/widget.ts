/** The widget on its element: launcher and panel in the shadow, kept in step with the chat, the page and the screen. */
import { createChat } from './chat';
import type { Chat } from './chat';
import { palette } from './color';
import { countUnread } from './conversation';
import { button, h, set, setText } from './dom';
import { icon } from './icons';
import { lookOf } from './look';
import { createPanel } from './panel';
import { createStorage } from './storage';
import styles from './styles.css?inline';
import { createDates, createTranslate } from './texts';
import type { Identity } from './wire';

const FOCUSABLE = 'button, textarea, a[href], [tabindex="0"]';

/** What a page can do with the element, from when it is on the page. */
export interface WidgetApi {
  open(): void;
  close(): void;
  toggle(): void;
  identify(identity: Identity): void;
  logout(): Promise<void>;
}

export interface Widget extends WidgetApi {
  /** An attribute has changed. */
  draw(): void;
  /** The element has left the page; it may come back. */
  disconnect(): void;
  /** The element is on the page, again perhaps. */
  connect(): void;
}

export interface WidgetOptions {
  host: HTMLElement;
  siteKey: string;
  /** The server's address. */
  base: string;
  option: (name: string) => string | null;
  identity: Identity | null;
}

export function createWidget({ host, siteKey, base, option, identity }: WidgetOptions): Widget {
  const language = option('language') ?? (document.documentElement.lang || navigator.language);
  const t = createTranslate(language, option('texts'));
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const phone = matchMedia('(max-width: 479.98px)');
  const page = document.documentElement.style;
  let listening = new AbortController();
  let isOpen = false;
  let isDrawing = false;
  /** What the page's own overflow was before it was made to stand still behind the full-screen panel. */
  let overflow: string | null = null;

  const emit = (name: string, detail?: unknown): void => {
    host.dispatchEvent(new CustomEvent(`replyline:${name}`, { detail, bubbles: true, composed: true }));
  };
  const storage = createStorage(siteKey);
  const chat: Chat = createChat({
    base: `${base.replace(/\/+$/, '')}/widget/v1`,
    siteKey,
    storage,
    pageUrl: () => location.href,
    changed: draw,
    tell: emit,
  });
  if (identity) chat.identify(identity);

  const panel = createPanel({ chat, t, dates: createDates(language), close });
  const badge = h('span', 'unread', { 'aria-hidden': 'true' });
  const launcher = button('launcher', toggle, { 'aria-controls': 'panel' }, icon('chat'), icon('down'), badge);
  const stay = (event: Event): void => event.stopPropagation();
  const root = h('div', 'root', { lang: language, onkeydown, onkeyup: stay, onkeypress: stay, onfocusin: stay }, panel.element, launcher);
  const shadow = host.attachShadow({ mode: 'open' });
  // A constructed sheet is no inline style: it also works under `style-src 'none'`.
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(styles);
  shadow.adoptedStyleSheets = [sheet];
  shadow.append(root);

  const isInline = (): boolean => host.hasAttribute('inline');
  /** The panel covers the page. */
  const isModal = (): boolean => isOpen && !isInline() && phone.matches;

  function show(): void {
    chat.start();
    if (isOpen) return;
    isOpen = true;
    remember();
    watch();
    drawNow();
    emit('open');
  }

  function open(): void {
    show();
    panel.focus();
  }

  function close(): void {
    if (!isOpen || isInline()) return;
    const hadFocus = shadow.activeElement;
    isOpen = false;
    remember();
    watch();
    drawNow();
    if (hadFocus) launcher.focus();
    emit('close');
  }

  /** The next page of the site opens as this one was left; on a phone, where the panel covers the page, it does not. */
  function remember(): void {
    if (!isInline()) storage.set('open', isOpen && !phone.matches ? '1' : null);
  }

  function toggle(): void {
    if (isOpen) close();
    else open();
  }

  function watch(): void {
    const isVisible = document.visibilityState === 'visible';
    chat.watched(isOpen && isVisible);
    if (isVisible) chat.wake();
  }

  function onkeydown(event: KeyboardEvent): void {
    // The page's own shortcuts are not meant by what is typed here.
    event.stopPropagation();
    if (event.key === 'Escape' && !event.isComposing) close();
    if (event.key !== 'Tab' || !isModal()) return;
    const stops = [...panel.element.querySelectorAll<HTMLElement>(FOCUSABLE)].filter((stop) => stop.offsetParent);
    if (shadow.activeElement !== stops.at(event.shiftKey ? 0 : -1)) return;
    event.preventDefault();
    stops.at(event.shiftKey ? -1 : 0)!.focus();
  }

  /** However much happens between two frames, it is drawn once. */
  function draw(): void {
    if (isDrawing) return;
    isDrawing = true;
    requestAnimationFrame(() => isDrawing && drawNow());
  }

  function drawNow(): void {
    isDrawing = false;
    const look = lookOf(chat.config, option, t);
    const isDark = look.theme === 'dark' || (look.theme !== 'light' && dark.matches);
    set(root, 'data-theme', isDark ? 'dark' : 'light');
    set(root, 'data-side', look.position === 'left' ? 'left' : 'right');
    set(root, 'data-open', String(isOpen));
    const view = window.visualViewport;
    const properties = {
      ...palette(look.color, isDark),
      // On a phone the panel fills what the keyboard leaves free.
      '--view-height': view?.scale === 1 ? `${view.height}px` : '',
      '--view-top': view?.scale === 1 ? `${view.offsetTop}px` : '',
    };
    for (const [name, value] of Object.entries(properties)) root.style.setProperty(name, value);

    const unread = isOpen ? 0 : countUnread(chat.conversation);
    const label = isOpen ? t('Close chat') : t('Open chat');
    setText(badge, unread > 9 ? '9+' : String(unread || ''));
    set(launcher, 'aria-label', unread ? `${label}, ${unread} ${t('unread')}` : label);
    set(launcher, 'aria-expanded', String(isOpen));
    // A site or visitor that is refused has nothing to open.
    launcher.hidden = chat.isRefused && !isOpen;
    set(panel.element, 'aria-modal', isModal() && 'true');
    holdPage(isModal());
    panel.render(look);
  }

  function holdPage(isHeld: boolean): void {
    if (isHeld === (overflow !== null)) return;
    [page.overflow, overflow] = isHeld ? ['hidden', page.overflow] : [overflow!, null];
  }

  return {
    open,
    close,
    toggle,
    draw,
    identify: chat.identify,
    async logout() {
      panel.clear();
      await chat.logout();
      if (isOpen) chat.start();
    },
    connect() {
      listening = new AbortController();
      const { signal } = listening;
      const on = (target: EventTarget | null, names: string, listener: (event: never) => void): void => {
        for (const name of names.split(' ')) target?.addEventListener(name, listener as EventListener, { signal });
      };
      on(window, 'online', chat.wake);
      on(window, 'offline', chat.drop);
      on(window, 'storage', (event: StorageEvent) => chat.storageChanged(event.key));
      on(document, 'visibilitychange', watch);
      on(window.visualViewport, 'resize scroll', draw);
      on(dark, 'change', draw);
      on(phone, 'change', draw);
      const wasOpen = !phone.matches && storage.get('open') !== null;
      if (isOpen || isInline() || wasOpen || option('open') !== null) show();
      else if (chat.isKnown) chat.start();
      draw();
    },
    disconnect() {
      listening.abort();
      chat.stop();
      holdPage(false);
    },
  };
}
