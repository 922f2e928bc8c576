/** What codes mean, in people's words, and how long something took. */

const WAITS = {
  quiet_window: 'Quiet window, in case more is written',
  superseded: 'A newer message came: both are answered together',
  retry: 'Trying again',
  behind_earlier: 'Behind an earlier message, so that order is kept',
  recipient_limit: 'Not too much at once for one person',
  pair_limit: 'Not too much at once for one person',
  rate_limited: 'The channel asked us to slow down',
  paced: 'The channel sends at its own pace',
  account_limit: 'At the pace that this number may send',
  limits_away: 'The limits cannot be asked right now',
  provider_rate_limited: 'The AI provider asked us to slow down',
  outcome_unknown: 'May have arrived already: waiting for its receipt, so that it is not sent twice',
  picture_pending: 'A picture is still being fetched',
  channel_mended: 'The channel works again',
  payment_problem: 'Held: the bill at Meta is not paid',
  session_logged_out: 'Held, not lost: the telephone is logged out',
  session_closed: 'Held, not lost: the telephone is not connected',
  session_not_paired: 'Held, not lost: the telephone is not linked yet',
  session_banned: 'Held: WhatsApp has banned the number',
};

const REASONS = {
  attempts_exhausted: 'all tries were used',
  patience_exhausted: 'it waited as long as it may',
  undeliverable: 'the number cannot be reached',
};

/** In few words, for a job that is through. */
const WAITED = { quiet_window: 'Quiet window, in case more is written', retry: 'Before another try', superseded: 'Answered with a newer message' };
export const whatItWaitedFor = (reason) => WAITED[reason] ?? whyItWaits(reason);

/** A reason may be told with what it belongs to: "the channel is not healthy: session_logged_out". */
export const whyItWaits = (reason) => WAITS[reason] ?? WAITS[reason.split(': ').at(-1)] ?? reason;
/** Whether the channel, and not the queue, is what it waits for. */
export const isHeld = (reason) => whyItWaits(reason).startsWith('Held');
export const whyItDied = (reason) => (reason ? (REASONS[reason] ?? reason) : 'no reason given');

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return '–';
  const s = Math.max(0, seconds);
  if (s < 0.001) return '<1 ms';
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 9.995) return `${s.toFixed(2)} s`;
  if (s < 99.95) return `${s.toFixed(1)} s`;
  return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

/** A countdown does not flicker through hundredths. */
export const countdown = (seconds) => `${Math.max(0.1, seconds).toFixed(1)} s`;

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
