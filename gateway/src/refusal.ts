/** Every way a call can be refused: docs/qr-gateway.md, "Errors". */

const REFUSALS = {
  unauthorized: [401, false],
  unknown_session: [404, false],
  not_found: [404, false],
  unknown_media: [404, false],
  not_connected: [409, true],
  in_flight: [409, true],
  already_open: [409, false],
  logged_out: [410, false],
  banned: [410, false],
  too_large: [413, false],
  not_owner: [421, true],
  bad_link: [422, false],
  invalid: [422, false],
  not_on_whatsapp: [422, false],
  key_reused: [422, false],
  restricted: [423, false],
  paced: [429, true],
  capped: [429, true],
  internal: [500, true],
  unavailable: [503, true],
} as const;

export type RefusalCode = keyof typeof REFUSALS;

/** What a caller is told instead of an answer. The message never holds what a person wrote, nor a phone number. */
export class Refusal extends Error {
  readonly status: number;

  /**
   * @param retryAfterMs when to ask again, in ms; null where no waiting helps or nobody knows.
   * @param until for `restricted`: Unix seconds, or null where WhatsApp did not say; left out for every other code.
   */
  constructor(
    readonly code: RefusalCode,
    message: string,
    readonly retryAfterMs: number | null = null,
    readonly until?: number | null,
  ) {
    super(message);
    this.status = REFUSALS[code][0];
  }

  get body(): object {
    const error = {
      code: this.code,
      message: this.message,
      retryable: REFUSALS[this.code][1],
      retry_after_ms: this.retryAfterMs === null ? null : Math.max(1, Math.ceil(this.retryAfterMs)),
    };
    return { error: this.until === undefined ? error : { ...error, until: this.until } };
  }
}
