/** The gateway's process: reads the settings, joins the parts, and ends in order. */
import { destination, pino } from 'pino';
import { baileys } from './baileys.js';
import { Gateway } from './gateway.js';
import { ScriptedWhatsApp } from './scripted.js';
import { makeServer } from './server.js';
import { readSettings, SettingsError } from './settings.js';
import type { Settings } from './settings.js';

/** A supervisor kills after five seconds what does not end by itself. */
const CLOSING_MS = 4000;

const log = pino({ base: { pid: process.pid } }, destination({ fd: 2, sync: true }));

async function main(settings: Settings): Promise<void> {
  const scripted = settings.socket === 'scripted' ? new ScriptedWhatsApp(settings.scriptLog) : null;
  const gateway = new Gateway(settings, scripted?.open ?? baileys(settings.waVersion), log);
  const server = makeServer(gateway, settings.token, log);
  scripted?.addRoutes(server);
  const url = await server.listen({ host: settings.host, port: settings.port });

  let closing = false;
  const close = async (signal: string): Promise<void> => {
    if (closing) return;
    closing = true;
    log.info({ signal }, 'closing');
    setTimeout(() => process.exit(0), CLOSING_MS).unref();
    // Calls that are under way are answered, as closing the sessions ends their waits; what they came by is then idle.
    const served = server.close();
    setInterval(() => server.server.closeIdleConnections(), 20).unref();
    await gateway.close();
    await served;
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => void close(signal));

  await gateway.start();
  process.stdout.write(`${JSON.stringify({ url, pid: process.pid })}\n`);
}

// Baileys leaves promises behind; one of them must not end every session of this process.
process.on('unhandledRejection', (error) => log.error({ kind: (error as Error | null)?.name }, 'a promise was left'));
process.on('uncaughtException', (error) => {
  log.fatal({ kind: error.name, at: error.stack?.split('\n')[1]?.trim() }, 'the gateway failed');
  process.exit(1);
});

try {
  await main(readSettings(process.env));
} catch (error) {
  const isOurs = error instanceof SettingsError;
  log.fatal({ reason: (error as Error).message }, isOurs ? 'the settings are wrong' : 'the gateway cannot start');
  process.exit(isOurs ? 2 : 1);
}
