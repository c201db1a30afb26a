import {posix} from 'node:path';
import {readU32be} from '../lib/bytes.ts';
import type {LogEntry} from '../log/log-entry.ts';
import type {PageHasher} from '../ltx/checksum.ts';
import {
  DATABASE_HEADER_SIZE,
  type DatabaseHeader,
  decodeDatabaseHeader,
  effectivePageCount,
} from '../sqlite/database-header.ts';
import {SqliteFormatError} from '../sqlite/error.ts';
import {JOURNAL_HEADER_SIZE, looksHot, planRollback, readSuperJournalName} from '../sqlite/journal.ts';
import {LockBytes} from '../sqlite/lock-bytes.ts';
import {
  decodeWalHeader,
  frameOffset,
  type StoredWalHeader,
  verifyWalFrame,
  WAL_FRAME_HEADER_SIZE,
  WAL_HEADER_SIZE,
} from '../sqlite/wal.ts';
import {type Finding, guarded, note, noteIf, violation} from './finding.ts';
import type {InputFile, InputFolder} from './input-folder.ts';
import type {LeftBehind} from './left-behind.ts';
import {PageSums} from './page-sums.ts';

/** Pages that are somewhere else than in the database file, by checksum. */
export interface Overlay {
  readonly sums: PageSums;
  /** Size of the database in pages, where the overlay says it. */
  readonly pageCount: number | undefined;
}

export interface JournalContent extends Overlay {
  /** A transaction is not over. */
  readonly isInUse: boolean;
  /** Another file decides whether SQLite rolls back. */
  readonly isUncertain: boolean;
}

export interface WalContent extends Overlay {
  /** Pages of which a recovery makes a transaction if they differ: those in committed frames that the log does not have. */
  readonly unlogged: PageSums;
}

export interface ContentOptions {
  readonly folder: InputFolder;
  /** Path of the database file. */
  readonly path: string;
  readonly pageSize: number;
  readonly left: LeftBehind;
  readonly hasher: PageHasher;
  readonly pendingByte: number | undefined;
}

/** The log's last record, where it is known. */
export interface LoggedEnd {
  readonly last: LogEntry | undefined;
  readonly lastPgnos: readonly number[];
}

const READ_BYTES = 256 * 1024;

/** What SQLite would put back into the database file before anything else. */
export function* readJournal(options: ContentOptions): Generator<Finding, JournalContent> {
  const path = `${options.path}-journal`;
  const none: JournalContent = {
    sums: new PageSums(),
    pageCount: undefined,
    isInUse: false,
    isUncertain: false,
  };
  return (
    (yield* guarded(path, function* () {
      const file = options.folder.open(path);
      if (file === undefined) return none;
      try {
        return yield* checkJournal(options, path, file);
      } finally {
        file.close();
      }
    })) ?? none
  );
}

function* checkJournal(
  options: ContentOptions,
  path: string,
  file: InputFile,
): Generator<Finding, JournalContent> {
  const {pageSize, hasher, folder, pendingByte} = options;
  const sums = new PageSums();
  let pageCount: number | undefined;
  const head = new Uint8Array(JOURNAL_HEADER_SIZE);
  const header = head.subarray(0, file.read(0, head));
  const isInUse = looksHot(header);
  if (!isInUse) return {sums, pageCount, isInUse, isUncertain: false};
  const buffer = new Uint8Array(65_536 + 8);
  const read = (position: number, length: number) => {
    const target = length <= buffer.length ? buffer.subarray(0, length) : new Uint8Array(length);
    return target.subarray(0, file.read(position, target));
  };
  yield note(
    'JOURNAL_HOT',
    path,
    'A transaction is not over: SQLite rolls it back when the database is next opened',
  );
  try {
    const superName = readSuperJournalName(read, file.size);
    const superPath =
      superName === undefined
        ? undefined
        : posix.join(posix.dirname(options.path), posix.basename(superName));
    const isCommitted = superPath !== undefined && !exists(folder, superPath);
    if (isCommitted) return {sums, pageCount, isInUse, isUncertain: true};
    const steps = planRollback({
      read,
      fileSize: file.size,
      databasePageSize: pageSize,
      lockBytes: new LockBytes(pendingByte),
    });
    for (const step of steps) {
      if (step.kind === 'page') sums.set(step.pgno, hasher.checksum(step.pgno, step.page));
      else if (step.pageSize === pageSize) pageCount = step.pageCount;
      else return {sums, pageCount, isInUse, isUncertain: true};
    }
    return {sums, pageCount, isInUse, isUncertain: superPath !== undefined};
  } catch (error) {
    if (!(error instanceof SqliteFormatError)) throw error;
    return {sums: new PageSums(), pageCount: undefined, isInUse, isUncertain: true};
  }
}

function exists(folder: InputFolder, path: string): boolean {
  const file = folder.open(path);
  file?.close();
  return file !== undefined;
}

/** What a WAL adds to the database file once SQLite has recovered it: valid frames up to the last commit. */
export function* readWal(options: ContentOptions, logged: LoggedEnd): Generator<Finding, WalContent> {
  const path = `${options.path}-wal`;
  const none: WalContent = {sums: new PageSums(), pageCount: undefined, unlogged: new PageSums()};
  return (
    (yield* guarded(path, function* () {
      const file = options.folder.open(path);
      if (file === undefined) return none;
      try {
        const header = yield* readWalHeader(options, path, file);
        return header === undefined ? none : yield* checkWal(options, {path, file, header}, logged);
      } finally {
        file.close();
      }
    })) ?? none
  );
}

function* readWalHeader(
  {left, pageSize}: ContentOptions,
  path: string,
  file: InputFile,
): Generator<Finding, StoredWalHeader | undefined> {
  if (file.size === 0) return undefined;
  const bytes = new Uint8Array(WAL_HEADER_SIZE);
  try {
    const header = decodeWalHeader(bytes.subarray(0, file.read(0, bytes)));
    if (header.pageSize === pageSize) return header;
    yield violation(
      'PAGE_SIZE_MISMATCH',
      path,
      `WAL has pages of ${header.pageSize} bytes, the log of ${pageSize}`,
      {pageSize: header.pageSize, expected: pageSize},
    );
  } catch (error) {
    if (!(error instanceof SqliteFormatError)) throw error;
    const isExplained = left === 'rebooted' || file.size < WAL_HEADER_SIZE;
    yield noteIf(
      isExplained,
      'WAL_HEADER_CORRUPT',
      path,
      `SQLite takes the WAL for empty: ${error.message}`,
      {cause: error.code},
    );
  }
  return undefined;
}

interface WalFile {
  readonly path: string;
  readonly file: InputFile;
  readonly header: StoredWalHeader;
}

function* checkWal(
  {left, hasher}: ContentOptions,
  {path, file, header}: WalFile,
  logged: LoggedEnd,
): Generator<Finding, WalContent> {
  const {last, lastPgnos} = logged;
  const isLogged = last !== undefined && last.walSalt1 === header.salt1 && last.walSalt2 === header.salt2;
  const loggedEnd = isLogged && left !== 'following' ? last.walOffset + last.walSize : 0;
  // Its writer may have died and another one have written over it, so a recovery looks at the last transaction again.
  const certainEnd = isLogged && left === 'daemon-died' ? last.walOffset : loggedEnd;
  const sums = new PageSums();
  const unlogged = new PageSums();
  if (certainEnd < loggedEnd) for (const pgno of lastPgnos) unlogged.set(pgno, 1n);
  const open = {pgnos: [] as number[], sums: [] as bigint[]};
  let pageCount: number | undefined;
  let committedEnd = 0;
  for (const {pgno, commit, page, end} of walFrames(file, header)) {
    open.pgnos.push(pgno);
    open.sums.push(hasher.checksum(pgno, page));
    if (commit === 0) continue;
    for (let i = 0; i < open.pgnos.length; i++) {
      sums.set(open.pgnos[i], open.sums[i]);
      if (end > certainEnd) unlogged.set(open.pgnos[i], 1n);
    }
    open.pgnos.length = 0;
    open.sums.length = 0;
    sums.truncate(commit);
    pageCount = commit;
    committedEnd = end;
  }
  if (committedEnd < certainEnd) {
    const message = `WAL is valid up to byte ${committedEnd}, and was logged up to byte ${loggedEnd}`;
    yield noteIf(left === 'rebooted', 'WAL_SHORT', path, message, {committedEnd, loggedEnd});
  }
  return {sums, pageCount, unlogged};
}

interface ValidFrame {
  readonly pgno: number;
  readonly commit: number;
  /** A view, valid until the next frame. */
  readonly page: Uint8Array;
  /** Where the frame ends, in bytes. */
  readonly end: number;
}

/** The frames of a WAL up to the first one that is not valid. */
function* walFrames(file: InputFile, header: StoredWalHeader): Generator<ValidFrame> {
  const frameSize = WAL_FRAME_HEADER_SIZE + header.pageSize;
  const buffer = new Uint8Array(frameSize * Math.max(1, Math.floor(READ_BYTES / frameSize)));
  const running = Uint32Array.of(header.checksum1, header.checksum2);
  for (let frame = 0; ; ) {
    const count = Math.floor(file.read(frameOffset(frame, header.pageSize), buffer) / frameSize);
    if (count === 0) return;
    for (let at = 0; at < count * frameSize; at += frameSize) {
      if (!verifyWalFrame(buffer, at, header, running)) return;
      frame++;
      const page = buffer.subarray(at + WAL_FRAME_HEADER_SIZE, at + frameSize);
      yield {
        pgno: readU32be(buffer, at),
        commit: readU32be(buffer, at + 4),
        page,
        end: frameOffset(frame, header.pageSize),
      };
    }
  }
}

/** Header of the database file, if it has one: an encrypted one hasn't. */
export function readHeader(file: InputFile): DatabaseHeader | undefined {
  const bytes = new Uint8Array(DATABASE_HEADER_SIZE);
  try {
    return decodeDatabaseHeader(bytes.subarray(0, file.read(0, bytes)));
  } catch (error) {
    if (!(error instanceof SqliteFormatError)) throw error;
    return undefined;
  }
}

/** Size in pages that SQLite takes the database file to have by itself. */
export function filePageCount(file: InputFile, pageSize: number): number {
  const header = readHeader(file);
  return header?.pageSize === pageSize
    ? effectivePageCount(header, file.size)
    : Math.ceil(file.size / pageSize);
}

/** Gives the checksum of each page of the database file from 1 to `pageCount`; what the file lacks reads as zeros. */
export function* filePages(
  file: InputFile,
  pageSize: number,
  pageCount: number,
  isSkipped: (pgno: number) => boolean,
): Generator<{pgno: number; page: Uint8Array}> {
  const perRead = Math.max(1, READ_BYTES / pageSize);
  const buffer = new Uint8Array(perRead * pageSize);
  for (let first = 1; first <= pageCount; first += perRead) {
    buffer.fill(0, file.read((first - 1) * pageSize, buffer));
    const end = Math.min(first + perRead, pageCount + 1);
    for (let pgno = first; pgno < end; pgno++) {
      if (isSkipped(pgno)) continue;
      const at = (pgno - first) * pageSize;
      yield {pgno, page: buffer.subarray(at, at + pageSize)};
    }
  }
}
