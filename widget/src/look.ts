/** How the chat looks and what it allows: what the page says goes before what the server says. */
import type { Translate } from './texts';
import type { Config } from './wire';

const OVERRIDES = ['color', 'theme', 'position', 'title', 'subtitle', 'greeting', 'placeholder'] as const;

export const ATTRIBUTES = OVERRIDES.flatMap((name) => [name, `data-${name}`]);

export interface Look extends Config {
  placeholder: string;
  /** The letter in the avatar. */
  initial: string;
}

export function lookOf(config: Config | null, option: (name: string) => string | null, t: Translate): Look {
  const look = {
    title: '',
    subtitle: '',
    // Until the server has told its own, there is none.
    greeting: config && t('How can we help?'),
    placeholder: t('Write a message…'),
    color: null,
    theme: 'auto',
    position: 'right',
    uploads: false,
    upload_max_bytes: 0,
    upload_types: [],
    max_chars: 4000,
    initial: '',
  } as Look;
  for (const [name, value] of Object.entries(config ?? {})) if (value !== null) Object.assign(look, { [name]: value });
  for (const name of OVERRIDES) Object.assign(look, { [name]: option(name) ?? look[name] });
  look.title ||= t('Chat with us');
  look.initial = look.title.trim().slice(0, 1).toUpperCase();
  return look;
}
