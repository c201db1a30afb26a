import {ofdLock, ofdLockConflict} from '../../lib/libc.ts';
import {
  UNIX_SHM_DMS,
  WAL_CKPT_LOCK,
  WAL_NREADER,
  WAL_READ_LOCK,
  WAL_WRITE_LOCK,
} from '../../sqlite/lock-bytes.ts';

/** The write-ahead log's locks, which are bytes of the `-shm` file (2.3.2 WAL-Index Locking Protocol). */
export class ShmLocks {
  readonly #fd: number;

  /** `fd` is the mounted `-shm` file, open for reading and writing. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Joins those who have the `-shm` open. `first` is called under the exclusive lock when nobody else has:
   * what is in the file is then of no worth. False: somebody else is just doing the same.
   */
  tryJoin(first: () => void): boolean {
    // SQLite asks who is there before it tries, so that nobody uses a file whose first opener died before
    // clearing it.
    const conflict = ofdLockConflict(this.#fd, 'write', UNIX_SHM_DMS, 1);
    if (conflict?.type === 'write') return false;
    if (conflict === undefined) {
      if (!ofdLock(this.#fd, 'write', UNIX_SHM_DMS, 1)) return false;
      first();
    }
    return ofdLock(this.#fd, 'read', UNIX_SHM_DMS, 1);
  }

  tryWrite(): boolean {
    return ofdLock(this.#fd, 'write', WAL_WRITE_LOCK, 1);
  }

  tryCheckpoint(): boolean {
    return ofdLock(this.#fd, 'write', WAL_CKPT_LOCK, 1);
  }

  /** Waits for no reader: false when one holds read mark `index`. */
  tryReadMark(index: number): boolean {
    return ofdLock(this.#fd, 'write', WAL_READ_LOCK(index), 1);
  }

  dropReadMark(index: number): void {
    ofdLock(this.#fd, 'unlock', WAL_READ_LOCK(index), 1);
  }

  /** Locks read marks 1 to 4 at once: true when no reader uses the WAL. */
  tryWalReadMarks(): boolean {
    return ofdLock(this.#fd, 'write', WAL_READ_LOCK(1), WAL_NREADER - 1);
  }

  dropWalReadMarks(): void {
    ofdLock(this.#fd, 'unlock', WAL_READ_LOCK(1), WAL_NREADER - 1);
  }
}
