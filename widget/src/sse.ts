/** Server-sent events, out of text that comes in pieces cut anywhere; what decoded it has taken a byte order mark away. */

export type OnEvent = (name: string, data: string) => void;

export function createParser(onEvent: OnEvent): (piece: string) => void {
  let rest = '';
  let name = '';
  let data: string[] = [];

  function take(line: string): void {
    if (line === '') {
      if (data.length) onEvent(name || 'message', data.join('\n'));
      name = '';
      data = [];
      return;
    }
    const [, field, value] = /^([^:]*):? ?(.*)/s.exec(line)!;
    // `id` is left alone, as the messages bring their own numbers; `retry` too, as the backoff is ours. A comment has no field.
    if (field === 'event') name = value!;
    else if (field === 'data') data.push(value!);
  }

  return (piece) => {
    if (!piece) return;
    rest += piece;
    // A CR at the very end may be half of a CRLF, so it waits for what follows.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    lines.forEach(take);
  };
}
