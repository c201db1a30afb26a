import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import type {Config} from '../config/options.ts';

export class ReloadError extends Error {
  override readonly name = 'ReloadError';
  readonly code = 'RELOAD_NOT_RUNNING';
}

const TAKEOVER_MS = 15_000;
const POLL_MS = 50;

/** `ferrite reload`: tells the keeper to put the installed version in the running daemon's place, and waits until it is. */
export async function runReload(config: Config): Promise<number> {
  const daemonBefore = readPid(config.dataDir, 'daemon.pid');
  const keeper = readPid(config.dataDir, 'keeper.pid');
  try {
    process.kill(keeper, 'SIGHUP');
  } catch (cause) {
    throw new ReloadError(
      `Cannot reload: no keeper runs as process ${keeper}; start it with "ferrite mount"`,
      {cause},
    );
  }
  for (let waitedMs = 0; waitedMs < TAKEOVER_MS; waitedMs += POLL_MS) {
    if (readPid(config.dataDir, 'daemon.pid') !== daemonBefore) return 0;
    await new Promise(resolve => setTimeout(resolve, POLL_MS));
  }
  throw new ReloadError('Cannot reload: the new daemon did not take over; see its log');
}

function readPid(dataDirectory: string, name: string): number {
  try {
    return Number(readFileSync(join(dataDirectory, name), 'utf8'));
  } catch (cause) {
    throw new ReloadError(`Cannot reload: nothing was ever mounted with data directory "${dataDirectory}"`, {
      cause,
    });
  }
}
