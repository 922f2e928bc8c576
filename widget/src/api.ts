/** One call over HTTP. Whatever goes wrong becomes an ApiError; nothing above this file sees a Response that failed. */

const TIMEOUT_MS = 30_000;

interface Problem {
  code?: string;
  title?: string;
  detail?: string;
  retry_after_ms?: number;
}

export class ApiError extends Error {
  /** The chat as a whole is refused, and asking again would not change that. */
  fatal = false;

  constructor(
    /** 0: there was no answer at all. */
    readonly status: number,
    /** What the server says about it. */
    readonly problem: Problem = {},
  ) {
    super();
  }

  /** The server has read it and says no; the same thing again would be refused again. */
  get isRefusal(): boolean {
    return this.status >= 400 && this.status < 500 && ![401, 408, 425, 429].includes(this.status);
  }
}

/** Whatever was thrown, as an ApiError. */
export const asFailure = (error: unknown): ApiError => (error instanceof ApiError ? error : new ApiError(0));

export interface Call {
  method?: string;
  json?: unknown;
  file?: Blob;
  accept?: string;
  timeoutMs?: number;
  /** Given one, the caller ends the call by it, and there is no time limit. */
  signal?: AbortSignal;
}

export type Read<T> = (response: Response) => Promise<T>;
export type Api = <T>(path: string, call: Call, read: Read<T>) => Promise<T>;

export const asJson = <T>(response: Response): Promise<T> => response.json() as Promise<T>;
export const asBlob: Read<Blob> = (response) => response.blob();
export const asNothing: Read<void> = async () => {};

export async function request<T>(url: string, token: string | null, call: Call, read: Read<T>): Promise<T> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), call.timeoutMs ?? TIMEOUT_MS);
  const headers: Record<string, string> = { Accept: call.accept ?? 'application/json' };
  if (token) headers['Authorization'] = `Bearer ${token}`;
  if (call.json) headers['Content-Type'] = 'application/json';
  if (call.file) headers['Content-Type'] = call.file.type;
  const body = call.json ? JSON.stringify(call.json) : (call.file ?? null);
  try {
    const response = await fetch(url, {
      method: call.method ?? (body ? 'POST' : 'GET'),
      headers,
      body,
      signal: call.signal ?? limit.signal,
      credentials: 'omit',
      cache: 'no-store',
    });
    // A proxy in between answers in HTML; then the status is all there is.
    if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => undefined));
    return await read(response);
  } catch (error) {
    throw asFailure(error);
  } finally {
    clearTimeout(timer);
  }
}
