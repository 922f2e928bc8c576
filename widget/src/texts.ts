/** The words of the widget: English as it stands in the code, German, and whatever the page brings along in `data-texts`. */
import { parseJson } from './json';

const DE = {
  'Chat with us': 'Chat',
  'Open chat': 'Chat öffnen',
  'Close chat': 'Chat schließen',
  unread: 'ungelesen',
  Messages: 'Nachrichten',
  'Write a message…': 'Nachricht schreiben…',
  'How can we help?': 'Wie können wir helfen?',
  Send: 'Senden',
  'Attach a file': 'Datei anhängen',
  'Sending…': 'Wird gesendet…',
  'Not sent yet. It will be sent when you are back.': 'Noch nicht gesendet. Wird gesendet, sobald Sie wieder online sind.',
  'Not sent.': 'Nicht gesendet.',
  'Try again': 'Erneut versuchen',
  Discard: 'Verwerfen',
  'Connection lost. Reconnecting…': 'Verbindung unterbrochen. Neuer Versuch…',
  'The chat is not available.': 'Der Chat ist nicht verfügbar.',
  'Nobody can answer right now.': 'Im Moment kann niemand antworten.',
  'A person has taken over.': 'Ein Mensch hat übernommen.',
  'New messages': 'Neue Nachrichten',
  'Writing…': 'Schreibt…',
  You: 'Sie',
  Assistant: 'Assistent',
  Team: 'Team',
  'The file is too large.': 'Die Datei ist zu groß.',
  'This type of file cannot be sent.': 'Dieser Dateityp kann nicht gesendet werden.',
  'At most 5 files.': 'Höchstens 5 Dateien.',
  'The text is too long.': 'Der Text ist zu lang.',
  'Remove the file that could not be sent.': 'Entfernen Sie die Datei, die nicht gesendet werden konnte.',
  Sent: 'Gesendet',
  Picture: 'Bild',
  'That failed.': 'Das hat nicht geklappt.',
};

type Text = keyof typeof DE;
export type Translate = (text: Text) => string;

/** `own` is JSON, from the English to the page's own words. */
export function createTranslate(language: string, own: string | null): Translate {
  const words: Partial<Record<Text, string>> = { ...(/^de/i.test(language) && DE), ...parseJson(own, {}) };
  return (text) => words[text] ?? text;
}

export function formatSize(bytes: number): string {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export interface Dates {
  time: (date: Date) => string;
  day: (date: Date) => string;
}

/** Times of the day and names of days. */
export function createDates(language: string): Dates {
  // What the page calls its language may be nothing that exists; then it is the browser's.
  const known = /^[a-z]{2,3}(-[a-z]{4})?(-[a-z]{2})?$/i.test(language) ? language : undefined;
  const time = new Intl.DateTimeFormat(known, { timeStyle: 'short' });
  const day = new Intl.DateTimeFormat(known, { weekday: 'long', day: 'numeric', month: 'long' });
  const near = new Intl.RelativeTimeFormat(known, { numeric: 'auto' });
  return {
    time: (date) => time.format(date),
    day(date) {
      const ago = Math.round((new Date(date).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 864e5);
      const text = ago < -1 ? day.format(date) : near.format(ago, 'day');
      return text.slice(0, 1).toUpperCase() + text.slice(1);
    },
  };
}
