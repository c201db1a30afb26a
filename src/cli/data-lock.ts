import {constants, openSync} from 'node:fs';
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

/** The data directory, taken for this keeper. The lock ends with the process, however it ends. */
export class DataLock {
  readonly #fd: number;
  readonly #dataDirectory: string;

  private constructor(fd: number, dataDirectory: string) {
    this.#fd = fd;
    this.#dataDirectory = dataDirectory;
  }

  /** Throws `DataLockError` while another keeper has it. */
  static take(dataDirectory: string): DataLock {
    const fd = openLock(dataDirectory);
    if (!ofdLock(fd, 'write', KEEPER_BYTE, 1)) {
      throw new DataLockError(
        `Cannot use "${dataDirectory}": another ferrite serves it; stop that one first`,
      );
    }
    return new DataLock(fd, dataDirectory);
  }

  /** Waits until a daemon whose keeper was killed has ended, which it does by itself. Throws `DataLockError` if it doesn't. */
  async waitForDaemon(timeoutMs = DAEMON_END_MS): Promise<void> {
    for (let left = timeoutMs / RETRY_MS; !ofdLock(this.#fd, 'write', DAEMON_BYTE, 1); left--) {
      if (left <= 0)
        throw new DataLockError(
          `Cannot use "${this.#dataDirectory}": a daemon of an earlier ferrite still serves it; stop it first`,
        );
      await new Promise(resolve => setTimeout(resolve, RETRY_MS));
    }
    ofdLock(this.#fd, 'unlock', DAEMON_BYTE, 1);
  }
}

/** A daemon says that it is there. Shared: its successor may begin while a part of it is still stuck in the kernel. */
export function lockDataAsDaemon(dataDirectory: string): void {
  ofdLock(openLock(dataDirectory), 'read', DAEMON_BYTE, 1);
}

/** The directories of a node, as one string to compare. */
export function directoriesOf(config: {readonly dataDir: string; readonly fuseDir: string}): string {
  return JSON.stringify([config.dataDir, config.fuseDir]);
}
