import {encodeWalFrame, encodeWalHeader, frameOffset, WAL_FRAME_HEADER_SIZE} from '../../sqlite/wal.ts';
import {READMARK_NOT_USED} from '../../sqlite/wal-index.ts';
import {ApplyError} from './error.ts';
import {type Applied, checkedPages, type PageTransaction} from './page-transaction.ts';
import type {WalCore} from './wal-core.ts';

/**
 * Appends a transaction to the write-ahead log, as SQLite's `sqlite3WalFrames` does: frames first, then their
 * entries in the index, then the header, which is what readers go by. When a write fails the published state
 * is as before, and a later transaction overwrites what was left.
 */
export function appendTransaction(core: WalCore, transaction: PageTransaction): Applied {
  const frames = new FrameWriter(core, transaction.pageSize);
  const applied = frames.writeAll(transaction);
  const {header} = core;
  try {
    frames.index();
  } catch (error) {
    core.table.cleanup(header.mxFrame);
    throw error;
  }
  core.publish({
    ...header,
    iChange: (header.iChange + 1) >>> 0,
    pageSize: transaction.pageSize,
    mxFrame: frames.mxFrame,
    nPage: transaction.commit,
    frameChecksum1: frames.checksum1,
    frameChecksum2: frames.checksum2,
  });
  return applied;
}

/**
 * Begins the WAL anew, as SQLite's `walRestartHdr` does, if all of it is in the database file and no reader
 * uses it. The file's header is written when the first frame is. A file larger than `walSizeMax` bytes is given
 * back to the disk.
 */
export function restartIfDrained(core: WalCore, walSizeMax: number): boolean {
  const {header, info, locks} = core;
  if (header.mxFrame === 0 || info.nBackfill !== header.mxFrame) return false;
  if (!locks.tryWalReadMarks()) return false;
  core.nCkpt = (core.nCkpt + 1) >>> 0;
  const salt1 = (header.salt1 + 1) >>> 0;
  core.publish({...header, bigEndCksum: false, mxFrame: 0, salt1, salt2: core.randomU32()});
  info.nBackfill = 0;
  info.nBackfillAttempted = 0;
  info.setReadMark(1, 0);
  for (let i = 2; i <= 4; i++) info.setReadMark(i, READMARK_NOT_USED);
  try {
    if (core.files.disk.size(core.walFd) > walSizeMax)
      core.files.truncateCompanion('follower-wal:truncate', '-wal', 0);
  } finally {
    locks.dropWalReadMarks();
  }
  return true;
}

/** Gathers frames and writes them in pieces as large as the buffer. */
class FrameWriter {
  readonly #core: WalCore;
  readonly #pageSize: number;
  readonly #frameSize: number;
  readonly #buffer: Uint8Array;
  readonly #running: Uint32Array;
  readonly #pgnos: number[] = [];
  /** Bytes in the buffer, and where in the WAL they go. */
  #used = 0;
  #position: number;
  /**
   * The last frame is encoded when its successor comes, or at the end: only the last says the commit size.
   */
  #openPgno = 0;

  constructor(core: WalCore, pageSize: number) {
    const {header} = core;
    this.#core = core;
    this.#pageSize = pageSize;
    this.#frameSize = WAL_FRAME_HEADER_SIZE + pageSize;
    this.#buffer = core.files.buffer;
    this.#running = Uint32Array.of(header.frameChecksum1, header.frameChecksum2);
    this.#position = frameOffset(header.mxFrame, pageSize);
    if (header.mxFrame === 0) this.#beginFile();
  }

  get mxFrame(): number {
    return this.#core.header.mxFrame + this.#pgnos.length;
  }

  get checksum1(): number {
    return this.#running[0];
  }

  get checksum2(): number {
    return this.#running[1];
  }

  writeAll(transaction: PageTransaction): Applied {
    let readVersion: number | undefined;
    for (const {pgno, page} of checkedPages(transaction, this.#core.lockBytes.lockPgno(this.#pageSize))) {
      if (pgno === 1) readVersion = page[19];
      this.#add(pgno, page);
    }
    if (this.#openPgno === 0) {
      throw new ApplyError('APPLY_BAD_TRANSACTION', 'Cannot apply transaction: it has no pages');
    }
    this.#encode(transaction.commit);
    this.#flush();
    return {readVersion};
  }

  /** Enters the frames into the index. Readers don't look at them yet. */
  index(): void {
    const {table, header} = this.#core;
    let frame = header.mxFrame;
    for (const pgno of this.#pgnos) table.append(++frame, pgno);
  }

  /**
   * The header is durable before the first frame, as in `sqlite3WalFrames`: if a loss of power took it and left frames behind
   * the first ones, the old header would show the beginning of the old log, and that would go over a newer database file.
   */
  #beginFile(): void {
    const {header, nCkpt, files, walFd} = this.#core;
    const {bigEndCksum, salt1, salt2} = header;
    const stored = {bigEndCksum, pageSize: this.#pageSize, nCkpt, salt1, salt2};
    encodeWalHeader(this.#buffer, 0, stored, this.#running);
    this.#used = frameOffset(0, this.#pageSize);
    this.#position = 0;
    if (!files.isSynced) return;
    this.#flush();
    files.disk.sync('follower-wal:sync-header', walFd);
  }

  #add(pgno: number, page: Uint8Array): void {
    if (this.#openPgno !== 0) this.#encode(0);
    if (this.#used + this.#frameSize > this.#buffer.length) this.#flush();
    this.#buffer.set(page, this.#used + WAL_FRAME_HEADER_SIZE);
    this.#openPgno = pgno;
  }

  #encode(commit: number): void {
    const {salt1, salt2, bigEndCksum} = this.#core.header;
    const start = this.#used + WAL_FRAME_HEADER_SIZE;
    const page = this.#buffer.subarray(start, start + this.#pageSize);
    const frame = {pgno: this.#openPgno, commit, salt1, salt2, page};
    this.#used += encodeWalFrame(this.#buffer, this.#used, frame, this.#running, bigEndCksum);
    this.#pgnos.push(this.#openPgno);
    this.#openPgno = 0;
  }

  #flush(): void {
    const bytes = this.#buffer.subarray(0, this.#used);
    this.#core.files.disk.write('follower-wal:append', this.#core.walFd, bytes, this.#position);
    this.#core.files.cache.store('wal', this.#position, bytes);
    this.#position += this.#used;
    this.#used = 0;
  }
}
