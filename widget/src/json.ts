/** What was kept or written by others, if it can be read. */
export function parseJson<T>(text: string | null, otherwise: T): T {
  try {
    return (JSON.parse(text ?? 'null') as T | null) ?? otherwise;
  } catch {
    return otherwise;
  }
}
