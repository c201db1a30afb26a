import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {NodeIdentity} from '../cluster/node-identity.ts';
import type {Config} from '../config/options.ts';
import {FsClient} from '../engine/client/fs-client.ts';
import {bootId, diskThatCrashesAt} from '../engine/data-directory.ts';
import {
  type DaemonMessage,
  EXIT_HOPELESS,
  FUSE_FD,
  HEARTBEAT_FD,
  type KeeperMessage,
} from '../keeper/keeper.ts';
import {createLogger} from '../telemetry/log.ts';
import {parseArguments} from './arguments.ts';
import {directoriesOf, lockDataAsDaemon} from './data-lock.ts';
import {describeExit} from './exit.ts';
import {Node} from './node.ts';
import type {ConfigSource} from './usage.ts';

const FLAGS = [
  {name: 'config', placeholder: 'PATH', doc: ''},
  {name: 'no-expand-env', doc: ''},
  {name: 'debug', doc: ''},
];

/**
 * The process that does the work, started by the keeper: never by hand. Loads, says so, waits for its turn, serves until the
 * keeper tells it to end or the mount is gone.
 */
export async function runDaemon(
  argv: readonly string[],
  readConfig: (source: ConfigSource) => Config,
): Promise<number> {
  const {flags} = parseArguments('daemon', FLAGS, argv);
  process.umask(0); // The kernel has applied the caller's umask to the modes it asks for.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined); // The keeper decides.
  const path = flags.get('config');
  const config = readConfig({
    path: typeof path === 'string' ? path : undefined,
    expandEnv: flags.get('no-expand-env') !== true,
  });
  const log = createLogger({
    format: config.logFormat,
    debug: config.logDebug || flags.get('debug') === true,
    timestamp: config.logTimestamp,
  });
  if (process.env.FERRITE_DIRECTORIES !== directoriesOf(config)) {
    log.error('data.dir or fuse.dir changed in the config: stop ferrite and start it again');
    return EXIT_HOPELESS;
  }
  const fsWorker = FsClient.preload();
  const go = nextMessage('go');
  tell({type: 'loaded'});
  const {isResuming} = await go;
  try {
    lockDataAsDaemon(config.dataDir);
    const node = await Node.start({
      config,
      log,
      identity: NodeIdentity.open(diskThatCrashesAt(undefined), config.dataDir),
      fsWorker,
      onServing: () => {
        writeFileSync(join(config.dataDir, 'daemon.pid'), `${process.pid}\n`);
        tell({type: 'serving'});
      },
      thread: {
        fuseFd: FUSE_FD,
        heartbeatFd: HEARTBEAT_FD,
        isResuming,
        epoch: {boot: bootId(), run: process.env.FERRITE_RUN ?? ''},
        crashAt: process.env.FERRITE_CRASH_AT,
      },
    });
    process.on('message', (message: KeeperMessage) => {
      if (message.type === 'release') void node.release().then(() => tell({type: 'released'}));
      if (message.type === 'quit') node.quit();
    });
    onKeeperGone(() => void node.abandon());
    return await node.ended;
  } catch (error) {
    log.error('cannot serve', {error});
    process.stderr.write(`${describeExit(error).text}\n`);
    return EXIT_HOPELESS;
  }
}

function tell(message: DaemonMessage): void {
  // Fails where the keeper is gone: then there is nobody to tell, and its end is noticed in another way.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

/** Calls `end` when the keeper has ended, also where it did before anybody asked. Returns how to take that back. */
function onKeeperGone(end: () => void): () => void {
  process.once('disconnect', end);
  if (!process.connected) end();
  return () => process.off('disconnect', end);
}

function nextMessage<Type extends KeeperMessage['type']>(
  type: Type,
): Promise<Extract<KeeperMessage, {type: Type}>> {
  return new Promise(resolve => {
    const listener = (message: KeeperMessage) => {
      if (message.type !== type) return;
      process.off('message', listener);
      stopWatching();
      resolve(message as Extract<KeeperMessage, {type: Type}>);
    };
    process.on('message', listener);
    // Before its turn came: our descriptor must not keep the mount's connection alive.
    const stopWatching = onKeeperGone(() => process.exit(0));
  });
}
