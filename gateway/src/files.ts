/** A file on its way out, as Baileys wants it: docs/qr-gateway.md, "Sending". */
import type { AnyMessageContent } from 'baileys';
import type { Fetched } from './links.js';
import { Refusal } from './refusal.js';

export const FILE_KINDS = ['image', 'audio', 'video', 'document', 'sticker'] as const;

export interface OrderedFile {
  kind: (typeof FILE_KINDS)[number];
  link: string;
  filename: string | null;
}

const TYPES: Partial<Record<OrderedFile['kind'], string>> = {
  image: 'image/',
  audio: 'audio/',
  video: 'video/',
  sticker: 'image/webp',
};

/** The message of a fetched file. Throws Refusal where the link led to something else, a login page perhaps. */
export function contentOf({ kind, filename }: OrderedFile, { data, mime, name }: Fetched, text: string): AnyMessageContent {
  const type = TYPES[kind];
  if (type !== undefined && mime !== null && !mime.startsWith(type)) {
    throw new Refusal('bad_link', `the link leads to ${mime.slice(0, 100)}, which is no ${kind}`);
  }
  const caption = text === '' ? {} : { caption: text };
  const mimetype = mime === null ? {} : { mimetype: mime };
  switch (kind) {
    case 'image':
      return { image: data, ...caption, ...mimetype };
    case 'video':
      return { video: data, ...caption, ...mimetype };
    case 'sticker':
      return { sticker: data };
    case 'audio':
      // Ogg is what telephones record voice notes in; only as one do they play it.
      return mime?.startsWith('audio/ogg')
        ? { audio: data, mimetype: 'audio/ogg; codecs=opus', ptt: true }
        : { audio: data, ...mimetype };
    case 'document':
      return { document: data, mimetype: mime ?? 'application/octet-stream', fileName: filename ?? name ?? 'file', ...caption };
  }
}
