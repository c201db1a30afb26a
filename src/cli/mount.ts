import {randomBytes} from 'node:crypto';
import {existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync} from 'node:fs';
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

/** A daemon whose keeper was killed normally ends well before. */
const STUCK_AFTER_MS = 5000;
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
  const paths = made('data.dir', config.dataDir, makeDataDirectory);
  const lock = DataLock.take(config.dataDir);
  const note = join(config.dataDir, 'mounted');
  if (!flags.skipUnmount) {
    clearStaleMount(note);
    refuseMounted(config.fuseDir);
  }
  await lock.waitForDaemon(STUCK_AFTER_MS).catch(async error => {
    if (!abortDetached(note)) throw error;
    await lock.waitForDaemon();
  });
  writeFileSync(join(config.dataDir, 'keeper.pid'), `${process.pid}\n`);
  removeHidden(paths);
  made('fuse.dir', config.fuseDir, path => mkdirSync(path, {recursive: true}));
  // The kernel's list of mounts knows no symbolic links.
  const directory = realpathSync(config.fuseDir);
  if (!flags.skipUnmount) refuseMounted(directory);
  process.env.FERRITE_RUN = randomBytes(8).toString('hex');
  // What this keeper stands for: a config that says otherwise by the next reload is refused.
  process.env.FERRITE_DIRECTORIES = directoriesOf(config);
  const daemonFlags = [
    ...(flags.config.expandEnv ? [] : ['-no-expand-env']),
    ...(flags.debug ? ['-debug'] : []),
  ];
  const keeper = new Keeper({
    directory,
    allowOther: config.fuseAllowOther,
    daemonCommand: () => [process.execPath, MAIN, 'daemon', '-config', config.path, ...daemonFlags],
    log: (level, message, fields) => log[level](message, fields),
    mounted: connection => writeFileSync(note, JSON.stringify({directory, connection})),
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

/** Calls `make` for the directory that the option `key` names. Throws `MountError` where it can't be a directory. */
function made<T>(key: string, path: string, make: (path: string) => T): T {
  try {
    return make(path);
  } catch (cause) {
    const {code} = cause as NodeJS.ErrnoException;
    const state = code === 'EEXIST' || code === 'ENOTDIR' ? 'a file is in its place' : String(code);
    throw new MountError('MOUNT_FAILED', `Cannot make ${key} "${path}": ${state}; choose another ${key}`, {
      cause,
    });
  }
}

/**
 * A mount that a killed ferrite of this data directory left behind (its apps may still hold files in it) is aborted and
 * taken away: a thread of its daemon may be waiting in the kernel for an answer that only the daemon itself could
 * have given.
 */
function clearStaleMount(note: string): void {
  const noted = readNote(note);
  if (noted === undefined) return;
  const {directory, connection} = noted;
  const found = mountedAt(directory);
  if (found?.source === 'ferritefs' && found.connection === connection) {
    abortConnection(connection);
    unmount(directory, true);
  }
}

/**
 * The daemon of a killed ferrite does not end, and its mount is detached already: then it is its old connection that
 * holds it. Only now, because the kernel uses connections' numbers again. Returns whether there was one to abort.
 */
function abortDetached(note: string): boolean {
  const noted = readNote(note);
  return noted !== undefined && !isMounted(noted.connection) && abortConnection(noted.connection);
}

/** What the last ferrite noted of its mount. After a loss of power, which can tear the note, nothing is mounted. */
function readNote(note: string): {readonly directory: string; readonly connection: number} | undefined {
  if (!existsSync(note)) return undefined;
  try {
    return JSON.parse(readFileSync(note, 'utf8')) as {directory: string; connection: number};
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Whatever else is mounted there is left alone. */
function refuseMounted(directory: string): void {
  const found = mountedAt(directory);
  if (found === undefined) return;
  throw new MountError(
    'MOUNT_BUSY',
    `Cannot mount "${directory}": ${found.source} (${found.type}) is mounted there; unmount it or choose another fuse.dir`,
  );
}
