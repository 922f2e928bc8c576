/** What travels between the page and the server, as it stands in the protocol. */

export type Author = 'user' | 'assistant' | 'agent';

/** Who answers. */
export type Owner = 'BOT' | 'HUMAN' | 'NONE';

export interface Attachment {
  id: string;
  name: string;
  mime_type: string;
  size: number;
}

/** A button, or a row of a list. */
export interface Option {
  id: string;
  title: string;
  description: string | null;
}

/** What a message of the business is besides text: shown in place of its text, which says the same in words. */
export interface Content {
  type: 'buttons' | 'list' | 'media';
  text: string;
  header: string | null;
  footer: string | null;
  /** What a list is called. */
  label: string | null;
  sections: { title: string | null; options: Option[] }[];
  file: { kind: string; url: string; name: string | null } | null;
}

/** The option that a visitor's message is, and the message that offers it. */
export interface Choice {
  message_id: string;
  option_id: string;
}

export interface Message {
  id: string;
  seq: number;
  author: Author;
  text: string;
  client_id: string | null;
  status: 'received' | 'sent' | 'delivered' | 'read';
  attachments: Attachment[];
  content?: Content | null;
  choice?: Choice | null;
  created_at: string;
}

export interface Page {
  data: Message[];
  more: boolean;
  last_event_id: string;
}

export interface Config {
  title: string;
  subtitle: string;
  greeting: string | null;
  placeholder: string | null;
  color: string | null;
  theme: string;
  position: string;
  uploads: boolean;
  upload_max_bytes: number;
  upload_types: string[];
  max_chars: number;
}

export interface SessionAnswer {
  session_token: string;
  expires_in: number;
  visitor_token: string;
  conversation_id: string;
  verified: boolean;
  config: Config;
}

export interface Accepted {
  id: string;
  client_id: string;
}

export interface Delta {
  id: string;
  i: number;
  text: string;
  replace?: boolean;
}

/** Who the page says the visitor is: an id with its HMAC, or a token of the site's own. */
export type Identity = { id: string; hash: string; token?: never } | { token: string };
