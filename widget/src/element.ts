/** <replyline-chat>, as the page sees it. */
import { ATTRIBUTES } from './look';
import type { Identity } from './wire';
import { createWidget } from './widget';
import type { Widget, WidgetApi } from './widget';

export const TAG = 'replyline-chat';

/** Where the script came from is where the server is, unless the page says otherwise. */
const script = document.currentScript;
// A page's own <img name=currentScript> would stand in the property's place, and say where the server is.
const ORIGIN = script instanceof HTMLScriptElement && script.src ? new URL(script.src).origin : location.origin;

export class ReplylineChat extends HTMLElement implements WidgetApi {
  static observedAttributes = ATTRIBUTES;

  private widget: Widget | undefined;
  /** Who the page said it is before the element was there. */
  private identity: Identity | null = null;

  connectedCallback(): void {
    const siteKey = this.option('site-key');
    if (!siteKey) return console.error(`${TAG}: site-key is missing`);
    this.widget ??= createWidget({
      host: this,
      siteKey,
      base: this.option('api') ?? ORIGIN,
      option: (name) => this.option(name),
      identity: this.identity,
    });
    this.widget.connect();
  }

  disconnectedCallback(): void {
    this.widget?.disconnect();
  }

  attributeChangedCallback(): void {
    this.widget?.draw();
  }

  open(): void {
    this.widget?.open();
  }

  close(): void {
    this.widget?.close();
  }

  toggle(): void {
    this.widget?.toggle();
  }

  identify(identity: Identity): void {
    this.identity = identity;
    this.widget?.identify(identity);
  }

  async logout(): Promise<void> {
    await this.widget?.logout();
  }

  /** The script tag's attributes begin with `data-`; on the element both will do. */
  private option(name: string): string | null {
    return this.getAttribute(`data-${name}`) ?? this.getAttribute(name);
  }
}
