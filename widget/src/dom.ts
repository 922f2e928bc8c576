/** Makes elements. Text only ever becomes text nodes; there is no way from a string to markup in this program. */
import { icon } from './icons';
import type { IconName } from './icons';

type Handler = (event: never) => void;
type Attributes = Record<string, string | boolean | Handler | null | undefined>;

/** `name` is the element's class; its last word is also its part and test id, for customers' CSS and for tests. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  name = '',
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (name) {
    const part = name.split(' ').pop();
    attributes = { class: name, part, 'data-testid': part, ...attributes };
  }
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key.slice(2), value as EventListener);
    else set(element, key, value);
  }
  element.append(...children);
  return element;
}

export function button(name: string, onclick: Handler | null, attributes: Attributes, ...children: (Node | string)[]): HTMLButtonElement {
  return h('button', name, { type: 'button', onclick, ...attributes }, ...children);
}

/** A round button with nothing in it but an icon. */
export function iconButton(name: string, image: IconName, label: string, onclick: Handler | null, attributes: Attributes = {}): HTMLButtonElement {
  return button(`icon ${name}`, onclick, { 'aria-label': label, title: label, ...attributes }, icon(image));
}

/** Sets what has changed and nothing else, so that assistive technology hears of changes only. */
export function set(element: Element, name: string, value: string | boolean | null | undefined): void {
  const text = value === true ? '' : value || value === '' ? value : null;
  if (element.getAttribute(name) === text) return;
  if (text === null) element.removeAttribute(name);
  else element.setAttribute(name, text);
}

export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
