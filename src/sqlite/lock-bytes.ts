import {assert} from '../lib/assert.ts';
import {isPageSize} from './page-size.ts';

/** Where SQLite's first lock byte is unless a test moved it (1.4 The Lock-Byte Page). */
export const PENDING_BYTE = 0x4000_0000;

/** Number of bytes in the shared range, one of which a reader used to pick at random. */
export const SHARED_SIZE = 510;

/**
 * The bytes of a database file that SQLite locks and never writes (1.4 The Lock-Byte Page). SQLite's own
 * tests move them down with `sqlite3_test_control(SQLITE_TESTCTRL_PENDING_BYTE)`, and so do ours, to have a
 * lock page in a database of a few megabytes.
 */
export class LockBytes {
  readonly pendingByte: number;
  readonly reservedByte: number;
  readonly sharedFirst: number;
  readonly sharedSize = SHARED_SIZE;

  constructor(pendingByte = PENDING_BYTE) {
    assert(Number.isSafeInteger(pendingByte) && pendingByte >= 0, 'the pending byte is an offset in a file');
    this.pendingByte = pendingByte;
    this.reservedByte = pendingByte + 1;
    this.sharedFirst = pendingByte + 2;
  }

  /** The page that holds the lock bytes; no transaction ever writes it. */
  lockPgno(pageSize: number): number {
    assert(isPageSize(pageSize), `${pageSize} is a page size`);
    return Math.floor(this.pendingByte / pageSize) + 1;
  }
}

// Lock bytes of the `-shm` file (WAL-mode File Format, "WAL Locks").

/** Held exclusively by the one writer. */
export const WAL_WRITE_LOCK = 120;
/** Held exclusively while a checkpoint runs. */
export const WAL_CKPT_LOCK = 121;
/** Held exclusively while the wal-index is rebuilt. */
export const WAL_RECOVER_LOCK = 122;
/** Number of read locks, and of read marks. */
export const WAL_NREADER = 5;

/** Lock byte of read mark `index`, 0 to 4. Readers that hold number 0 ignore the WAL. */
export function WAL_READ_LOCK(index: number): number {
  assert(Number.isInteger(index) && index >= 0 && index < WAL_NREADER, 'there are five read locks');
  return 123 + index;
}

/**
 * The "dead man switch": everybody who has the `-shm` open holds it shared; who gets it exclusively knows
 * that nobody has, and truncates the file.
 */
export const UNIX_SHM_DMS = 128;
