/** `npm run demo`: the built widget on a page, with the stand-in as its server, to look at. */
import { readFileSync } from 'node:fs';
import { Standin } from './standin';

const ANSWER = `Of course! Here is **what we have** today:

1. *Sourdough*, 750 g
2. Rye bread with \`caraway\`
3. Plaited loaf

> Everything is baked before six.

See [our shop](https://example.com/bread) or https://example.com.`;

const standin = await new Standin().start(Number(process.argv[2] ?? 8123));
standin.answer = () => ANSWER;
const script = readFileSync('../replyline/web/static/widget.js');
standin.pages.set('/widget.js', { type: 'text/javascript', body: script });

const page = (body: string): string =>
  `<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Demo</title>${body}</html>`;
standin.pages.set('/', {
  type: 'text/html; charset=utf-8',
  // The strictest policy that the widget works under.
  headers: {
    'Content-Security-Policy': `default-src 'none'; script-src ${standin.url}; connect-src ${standin.url}; style-src 'none'; img-src blob:`,
  },
  body: page('<h1>A page</h1><script src="/widget.js" data-site-key="site_demo" async></script>'),
});
standin.pages.set('/inline', {
  type: 'text/html; charset=utf-8',
  body: page('<script src="/widget.js"></script><div style="height:80vh"><replyline-chat site-key="site_inline" inline></replyline-chat></div>'),
});
console.log(standin.url);
