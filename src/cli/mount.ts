import {randomBytes} from 'node:crypto';
import {existsSync, mkdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import type {Config} from '../config/options.ts';
import {makeDataDirectory, removeHidden} from '../engine/data-directory.ts';
import {abortConnection, isMounted, MountError, mountedAt, unmount} from '../fuse/mount.ts';
import {Keeper} from '../keeper/keeper.ts';
import {createLogger, type Logger} from '../telemetry/log.ts';
import {DataLock, directoriesOf} from './data-lock.ts';

export interface MountFlags {
  readonly config: {readonly expandEnv: boolean};
  readonly skipUnmount: boolean;
  readonly debug: boolean;
}

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url));

/** `ferrite mount`: takes the data directory, clears what a killed predecessor left, and becomes the keeper. */
export async function runMount(config: Config, flags: MountFlags): Promise<number> {
  const log = createLogger({
    format: config.logFormat,
    debug: config.logDebug || flags.debug,
    timestamp: config.logTimestamp,
  });
  if (!existsSync('/dev/fuse'))
    throw new MountError(
      'MOUNT_NO_DEVICE',
      'Cannot open /dev/fuse: it does not exist; load the kernel module "fuse", in a container pass --device /dev/fuse',
    );
  const paths = makeDataDirectory(config.dataDir);
  const lock = DataLock.take(config.dataDir);
  const note = join(config.dataDir, 'mounted');
  if (!flags.skipUnmount) clearStaleMount(config.fuseDir, note);
  await lock.waitForDaemon();
  writeFileSync(join(config.dataDir, 'keeper.pid'), `${process.pid}\n`);
  removeHidden(paths);
  mkdirSync(config.fuseDir, {recursive: true});
  process.env.FERRITE_RUN = randomBytes(8).toString('hex');
  // What this keeper stands for: a config that says otherwise by the next reload is refused.
  process.env.FERRITE_DIRECTORIES = directoriesOf(config);
  const daemonFlags = [
    ...(flags.config.expandEnv ? [] : ['-no-expand-env']),
    ...(flags.debug ? ['-debug'] : []),
  ];
  const keeper = new Keeper({
    directory: config.fuseDir,
    allowOther: config.fuseAllowOther,
    daemonCommand: () => [process.execPath, MAIN, 'daemon', '-config', config.path, ...daemonFlags],
    log: (level, message, fields) => log[level](message, fields),
    mounted: connection => writeFileSync(note, JSON.stringify({directory: config.fuseDir, connection})),
  });
  const exitCode = await keeper.run();
  if (exitCode !== 0 && !config.exitOnError) await untilSignal(log);
  rmSync(note, {force: true});
  log.info('shut down complete');
  return exitCode;
}

/** `exit-on-error: false`: the machine can be looked at until somebody ends us. */
async function untilSignal(log: Logger): Promise<void> {
  log.error('waiting for a signal');
  const keepAlive = setInterval(() => undefined, 60_000);
  await new Promise(resolve => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, resolve);
  });
  clearInterval(keepAlive);
}

/**
 * A mount that a killed ferrite of this data directory left behind (its apps may still hold files in it) is aborted and
 * taken away: a thread of its daemon may be waiting in the kernel for an answer that only the daemon itself could
 * have given. Anything else that is mounted there is left alone.
 */
function clearStaleMount(directory: string, note: string): void {
  const noted = existsSync(note)
    ? (JSON.parse(readFileSync(note, 'utf8')) as {directory?: string; connection?: number})
    : {};
  const found = mountedAt(directory);
  if (found === undefined) {
    if (noted.connection !== undefined && !isMounted(noted.connection)) abortConnection(noted.connection);
    return;
  }
  const isOurs =
    found.source === 'ferritefs' && noted.directory === directory && noted.connection === found.connection;
  if (!isOurs) {
    throw new MountError(
      'MOUNT_BUSY',
      `Cannot mount "${directory}": ${found.source} (${found.type}) is mounted there; unmount it or choose another fuse.dir`,
    );
  }
  abortConnection(found.connection);
  unmount(directory, true);
}
