import {type OfdLockType, ofdLock} from '../../lib/libc.ts';
import type {LockBytes} from '../../sqlite/lock-bytes.ts';

/**
 * SQLite's locks on the database file (its os_unix.c, "The following describes the implementation of the
 * various locks"), taken as one more process. They belong to the descriptor and end with it.
 *
 * `tryShared` and the others never wait; false means that somebody is in the way and nothing has changed, but
 * for `tryExclusive`, which says so.
 */
export class DatabaseLocks {
  readonly #fd: number;
  readonly #bytes: LockBytes;
  #isShared = false;
  #isReserved = false;
  #isPending = false;
  #isExclusive = false;

  /** `fd` is the mounted database file, open for reading and writing. */
  constructor(fd: number, bytes: LockBytes) {
    this.#fd = fd;
    this.#bytes = bytes;
  }

  get isExclusive(): boolean {
    return this.#isExclusive;
  }

  /** Keeps every other process from writing in rollback mode and from removing the WAL at its close. */
  tryShared(): boolean {
    if (this.#isShared) return true;
    const {pendingByte} = this.#bytes;
    if (!ofdLock(this.#fd, 'read', pendingByte, 1)) return false;
    this.#isShared = this.#lockSharedRange('read');
    ofdLock(this.#fd, 'unlock', pendingByte, 1);
    return this.#isShared;
  }

  /** Tells other processes that a writer is alive: they then take no journal for a hot one. */
  tryReserved(): boolean {
    if (!this.#isReserved) this.#isReserved = ofdLock(this.#fd, 'write', this.#bytes.reservedByte, 1);
    return this.#isReserved;
  }

  dropReserved(): void {
    if (this.#isReserved) ofdLock(this.#fd, 'unlock', this.#bytes.reservedByte, 1);
    this.#isReserved = false;
  }

  /**
   * Keeps everybody out. When readers are in, false, and PENDING is kept, which lets them finish and nobody
   * new begin: call `downgrade` to let them in again.
   */
  tryExclusive(): boolean {
    if (this.#isExclusive) return true;
    if (!this.#isPending) this.#isPending = ofdLock(this.#fd, 'write', this.#bytes.pendingByte, 1);
    if (!this.#isPending) return false;
    this.#isExclusive = this.#lockSharedRange('write');
    return this.#isExclusive;
  }

  /** Back to SHARED (and RESERVED, if that is held), which readers can hold too. */
  downgrade(): void {
    if (this.#isExclusive) this.#lockSharedRange('read');
    this.#isExclusive = false;
    if (this.#isPending) ofdLock(this.#fd, 'unlock', this.#bytes.pendingByte, 1);
    this.#isPending = false;
  }

  #lockSharedRange(type: OfdLockType): boolean {
    return ofdLock(this.#fd, type, this.#bytes.sharedFirst, this.#bytes.sharedSize);
  }
}
