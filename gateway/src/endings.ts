/** What is done when a connection ends: contracts §3.6, "DisconnectReason". */

type Course =
  | 'at_once' // connect again without a wait
  | 'back_off' // connect again, later each time
  | 'yield' // connect again after minutes: another has the number, or we are not wanted
  | 'once_more' // back off, but a second time is the last
  | 'logged_out' // delete the login: only a new code helps
  | 'banned'; // stop, and keep the login

export interface Ending {
  course: Course;
  /** `last_error` of the session. */
  code: string;
  message: string;
}

const ENDINGS: Record<number, Ending> = {
  401: { course: 'logged_out', code: 'logged_out', message: 'WhatsApp or the telephone ended this login' },
  402: { course: 'banned', code: 'temporarily_banned', message: 'WhatsApp barred this number for a time' },
  403: { course: 'banned', code: 'banned', message: 'WhatsApp barred this number' },
  405: { course: 'yield', code: 'client_outdated', message: 'WhatsApp refuses this version: see GATEWAY_WA_VERSION' },
  406: { course: 'logged_out', code: 'login_refused', message: 'WhatsApp no longer takes this login' },
  408: { course: 'back_off', code: 'connection_lost', message: 'the connection was lost, or nobody scanned the code' },
  411: { course: 'logged_out', code: 'multidevice_mismatch', message: 'the telephone must be updated and paired anew' },
  428: { course: 'back_off', code: 'connection_closed', message: 'the connection was closed' },
  440: { course: 'yield', code: 'connection_replaced', message: 'somebody else connected with this login' },
  500: { course: 'once_more', code: 'bad_session', message: 'WhatsApp found the login damaged' },
  503: { course: 'back_off', code: 'service_unavailable', message: 'WhatsApp is not available' },
  515: { course: 'at_once', code: 'restart_required', message: 'WhatsApp asks to connect anew' },
};

const BACK_OFF_MS = { first: 1000, most: 60_000 };
const YIELD_MS = { first: 120_000, most: 1_800_000 };
/** So many rounds of codes (2 min 40 s each) are offered before it is taken that nobody looks. */
const ROUNDS = 10;

/** What went wrong since the connection was last good; made anew when it is, or when a person steps in. */
export class Troubles {
  #failures = 0;
  #yields = 0;
  #damages = 0;
  #rounds = 0;

  /** What to do about an end, counted. @param unscanned whether a code was shown at that moment. */
  weigh(code: number, unscanned: boolean): Ending {
    const ending = ENDINGS[code] ?? { course: 'back_off', code: 'connection_failed', message: 'the connection failed' };
    if (unscanned && code === 408 && ++this.#rounds >= ROUNDS) {
      return { course: 'logged_out', code: 'qr_expired', message: 'nobody scanned the code' };
    }
    if (ending.course !== 'once_more') return ending;
    return { ...ending, course: ++this.#damages > 1 ? 'logged_out' : 'back_off' };
  }

  /** How long to wait, in ms, before the next try, counted. */
  waitMs(course: Course): number {
    return course === 'yield' ? doubling(YIELD_MS, this.#yields++) : doubling(BACK_OFF_MS, this.#failures++);
  }
}

/** With up to a quarter more, so that many gateways that lost WhatsApp together do not come back together. */
function doubling({ first, most }: { first: number; most: number }, before: number): number {
  return Math.min(most, first * 2 ** before) * (1 + Math.random() / 4);
}
