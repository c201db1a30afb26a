import {constants, openSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {ofdLock} from '../lib/libc.ts';

export class DataLockError extends Error {
  override readonly name = 'DataLockError';
  readonly code = 'DATA_IN_USE';
}

const KEEPER_BYTE = 0;
const DAEMON_BYTE = 1;
const DAEMON_END_MS = 10_000;
const RETRY_MS = 50;

function openLock(dataDirectory: string): number {
  return openSync(join(dataDirectory, 'lock'), constants.O_RDWR | constants.O_CREAT, 0o600);
}

/**
 * Takes the data directory for this keeper, so that nothing else serves it. Waits for a daemon whose keeper was killed
 * to end, which it does by itself. The locks end with the process, however it ends. Throws `DataLockError`.
 */
export async function lockData(dataDirectory: string): Promise<void> {
  const fd = openLock(dataDirectory);
  if (!ofdLock(fd, 'write', KEEPER_BYTE, 1)) {
    throw new DataLockError(`Cannot use "${dataDirectory}": another ferrite serves it; stop that one first`);
  }
  for (let left = DAEMON_END_MS / RETRY_MS; !ofdLock(fd, 'write', DAEMON_BYTE, 1); left--) {
    if (left <= 0) throw new DataLockError(`Cannot use "${dataDirectory}": a daemon of an earlier ferrite still serves it; stop it first`);
    await new Promise(resolve => setTimeout(resolve, RETRY_MS));
  }
  ofdLock(fd, 'unlock', DAEMON_BYTE, 1);
  writeFileSync(join(dataDirectory, 'keeper.pid'), `${process.pid}\n`);
}

/** A daemon says that it is there. Shared: its successor may begin while a part of it is still stuck in the kernel. */
export function lockDataAsDaemon(dataDirectory: string): void {
  ofdLock(openLock(dataDirectory), 'read', DAEMON_BYTE, 1);
}
