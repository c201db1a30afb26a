import {unpackPageSize} from '../../sqlite/page-size.ts';
import {ApplyError} from './error.ts';

/** One transaction as whole pages, to be applied as it is. */
export interface PageTransaction {
  /** Bytes. */
  readonly pageSize: number;
  /** The database's size in pages after the transaction. */
  readonly commit: number;
  /**
   * The pages in ascending order, none beyond `commit`, without the lock page. Each view is valid until the
   * next. In rollback mode it is called twice: first to save what will be overwritten, then to write.
   */
  pages(): Iterable<{readonly pgno: number; readonly page: Uint8Array}>;
  /** Number of pages, if known; 0 otherwise. */
  readonly pageCountHint: number;
}

/**
 * 'applied', or what stood in the way; then nothing was changed, and the caller tries again a little later.
 */
export type ApplyResult = 'applied' | {readonly busy: 'reader'};

/** Puts bytes into the page cache of the mounted files, or throws out what is there. */
export interface KernelCache {
  /** Puts bytes that have just been written to the backing file into the mounted file's page cache. */
  store(file: 'database' | 'wal', offset: number, bytes: Uint8Array): void;
  invalidate(file: 'database' | 'wal' | 'journal'): void;
}

/**
 * Where the follower's write-ahead log ends: compare it with what was noted when a transaction was applied.
 */
export interface WalPosition {
  readonly salt1: number;
  readonly salt2: number;
  /** Number of the last committed frame. */
  readonly mxFrame: number;
}

/**
 * What an applied transaction said about the database's mode: byte 19 of page 1; undefined if it had no page
 * 1.
 */
export interface Applied {
  readonly readVersion: number | undefined;
}

/** Yields the transaction's pages; throws `APPLY_BAD_TRANSACTION` at the first that can't be one. */
export function* checkedPages(
  transaction: PageTransaction,
  lockPgno: number,
): Generator<{readonly pgno: number; readonly page: Uint8Array}> {
  const {pageSize, commit} = transaction;
  let pgnoLast = 0;
  for (const {pgno, page} of transaction.pages()) {
    if (pgno <= pgnoLast || pgno > commit || pgno === lockPgno) {
      const message = `Cannot apply transaction: page ${pgno} after ${pgnoLast} of ${commit}`;
      throw new ApplyError('APPLY_BAD_TRANSACTION', message, {pgno, pgnoLast, commit, lockPgno});
    }
    if (page.length !== pageSize || (pgno === 1 && headerPageSize(page) !== pageSize)) {
      const message = `Cannot apply transaction: page ${pgno} is not one of ${pageSize} bytes`;
      throw new ApplyError('APPLY_BAD_TRANSACTION', message, {pgno, size: page.length, pageSize});
    }
    pgnoLast = pgno;
    yield {pgno, page};
  }
}

function headerPageSize(page: Uint8Array): number {
  return unpackPageSize((page[16] << 8) | page[17]);
}
