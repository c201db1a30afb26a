import {readU32be} from '../../lib/bytes.ts';
import type {TransactionLog} from '../../log/transaction-log.ts';
import type {Crc64Factory} from '../../ltx/crc64.ts';
import {LtxDecoder} from '../../ltx/decoder.ts';
import {
  DATABASE_HEADER_SIZE,
  decodeDatabaseHeader,
  effectivePageCount,
  hasSqliteMagic,
} from '../../sqlite/database-header.ts';
import {SqliteFormatError} from '../../sqlite/error.ts';
import {hasJournalMagic} from '../../sqlite/journal.ts';
import type {LockBytes} from '../../sqlite/lock-bytes.ts';
import {isPageSize} from '../../sqlite/page-size.ts';
import {frameOffset, WAL_FRAME_HEADER_SIZE} from '../../sqlite/wal.ts';
import type {BackingFiles} from './backing-files.ts';
import type {PageCursor} from './page-cursor.ts';
import type {WalPlace} from './record-job.ts';
import type {WalTracker} from './wal-tracker.ts';

/** Page size and size in pages of a database file, from its header. */
export interface FileShape {
  readonly pageSize: number;
  readonly pageCount: number;
}

/**
 * Shape of the database file. A file without SQLite's header (an encrypted one) has the page size that its journal,
 * its WAL or its log says, `pageSizeKnown`, and ends where the file ends. `undefined`: not a database, or not yet.
 */
export function fileShape(files: BackingFiles, pageSizeKnown: number): FileShape | undefined {
  const header = new Uint8Array(DATABASE_HEADER_SIZE);
  const count = files.readMain(header, 0);
  const fileSize = files.mainSize;
  if (count === 0) return pageSizeKnown === 0 ? undefined : {pageSize: pageSizeKnown, pageCount: 0};
  if (count === DATABASE_HEADER_SIZE && hasSqliteMagic(header)) {
    try {
      const decoded = decodeDatabaseHeader(header);
      return {pageSize: decoded.pageSize, pageCount: effectivePageCount(decoded, fileSize)};
    } catch (error) {
      if (!(error instanceof SqliteFormatError)) throw error;
    }
  }
  return isPageSize(pageSizeKnown)
    ? {pageSize: pageSizeKnown, pageCount: Math.ceil(fileSize / pageSizeKnown)}
    : undefined;
}

/** Page size in a journal's header (3. The Rollback Journal: offset 24), or 0. */
export function journalPageSize(header: Uint8Array): number {
  if (header.length < 28) return 0;
  const pageSize = readU32be(header, 24);
  return isPageSize(pageSize) && (hasJournalMagic(header) || header.subarray(0, 12).every(byte => byte === 0))
    ? pageSize
    : 0;
}

/** Pages `first` to `last`, without the lock page. */
export function* pageRange(first: number, last: number, lockPgno: number): Generator<number> {
  for (let pgno = first; pgno <= last; pgno++) if (pgno !== lockPgno) yield pgno;
}

/** The pages of `cursor` up to `countBefore`, then every page from there to `commit`: a record holds all pages that are new. */
export function* pagesOfCommit(
  cursor: PageCursor,
  countBefore: number,
  commit: number,
  lockPgno: number,
): Generator<number> {
  for (; cursor.pgno <= countBefore && cursor.pgno <= commit; cursor.advance()) {
    if (cursor.pgno !== lockPgno) yield cursor.pgno;
  }
  yield* pageRange(countBefore + 1, commit, lockPgno);
}

/**
 * Whether the file's header says of itself that it is up to date, and the file is as long as it says: so it is
 * between the transactions of SQLite, and not in the middle of being copied.
 */
export function isFileWhole(files: BackingFiles): boolean {
  const header = new Uint8Array(DATABASE_HEADER_SIZE);
  if (files.readMain(header, 0) < DATABASE_HEADER_SIZE || !hasSqliteMagic(header)) return false;
  try {
    const decoded = decodeDatabaseHeader(header);
    return (
      decoded.changeCounter === decoded.versionValidFor &&
      decoded.pageCount * decoded.pageSize === files.mainSize
    );
  } catch (error) {
    if (!(error instanceof SqliteFormatError)) throw error;
    return false;
  }
}

export function walPlace(tracker: WalTracker, first: number, end: number): WalPlace | undefined {
  const {header} = tracker;
  if (header === undefined) return undefined;
  const offset = frameOffset(first, header.pageSize);
  return {offset, size: frameOffset(end, header.pageSize) - offset, salt1: header.salt1, salt2: header.salt2};
}

/** Reads the page in `frame` of the WAL. */
export function readFramePage(files: BackingFiles, frame: number, target: Uint8Array): void {
  const count = files.readWal(target, frameOffset(frame, target.length) + WAL_FRAME_HEADER_SIZE);
  if (count < target.length)
    throw new Error(`Cannot read frame ${frame} of "${files.path}-wal": it is cut short`);
}

/** Reads a page from `frame` of the WAL, or from the database file where that is negative: no frame holds it. */
export function readPageAt(files: BackingFiles, frame: number, pgno: number, target: Uint8Array): void {
  if (frame >= 0) readFramePage(files, frame, target);
  else files.readMainPage(pgno, target);
}

/** Page numbers in the last record of the log. */
export function pagesOfLastRecord(
  log: TransactionLog,
  crc64: Crc64Factory,
  lockBytes: LockBytes,
): Uint32Array {
  const entry = log.last();
  if (entry === undefined) return new Uint32Array(0);
  const lockPgno = lockBytes.lockPgno(entry.pageSize);
  const decoder = new LtxDecoder({source: log.read(entry), crc64: crc64.create(), lockPgno});
  const pgnos: number[] = [];
  for (let next = decoder.nextPage(); next !== undefined; next = decoder.nextPage()) pgnos.push(next.pgno);
  return Uint32Array.from(pgnos);
}
