/** WhatsApp's addresses of one person: `4915112345678@s.whatsapp.net`, or `123456789@lid` for a hidden number. */
import { isLidUser, isPnUser, jidNormalizedUser } from 'baileys';

/** WhatsApp's own notices. */
const WHATSAPP_ITSELF = '0@s.whatsapp.net';

/** Not a group, a broadcast, a newsletter, a bot or WhatsApp itself. */
export function isPerson(jid: string): boolean {
  return jid !== WHATSAPP_ITSELF && (isPnUser(jid) === true || isLidUser(jid) === true);
}

/** Whether it is a phone number, of which WhatsApp can be asked whether it is registered. */
export function isPhone(jid: string): boolean {
  return isPnUser(jid) === true;
}

/** The address a caller gave, without its device; digits alone are a phone number. Null where it is no person's. */
export function readJid(given: string): string | null {
  const jid = jidNormalizedUser(given.includes('@') ? given : `${given}@s.whatsapp.net`).replace(/^\+/, '');
  return /^\d{5,20}@/.test(jid) && isPerson(jid) ? jid : null;
}

/** The digits of an address. */
export function phoneOf(jid: string): string {
  return jidNormalizedUser(jid).split('@')[0] ?? '';
}
