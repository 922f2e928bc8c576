/** The script tag: defines the element, and puts one on the page if the tag has a site key. window.Replyline is that element. */
import { ReplylineChat, TAG } from './element';

// A page's own <img name=currentScript> stands in the property's place.
const script = document.currentScript;
const data = script instanceof HTMLScriptElement ? script.dataset : undefined;
const find = (): Element | null => document.querySelector(TAG);

let inserted: Element | null = null;
// A page may have the script twice; the first one stays.
if (!customElements.get(TAG)) {
  customElements.define(TAG, ReplylineChat);
  Object.defineProperty(window, 'Replyline', { get: () => find() ?? inserted });

}
if (data?.['siteKey'] && !find()) {
  const element = document.createElement(TAG);
  Object.assign(element.dataset, { ...data });
  inserted = element;
  // An async script may run before the body is there.
  const put = (): void => void (find() ?? document.body.append(element));
  if (document.body) put();
  else document.addEventListener('DOMContentLoaded', put);
}
