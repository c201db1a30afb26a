import {frameOffset, WAL_FRAME_HEADER_SIZE} from '../../sqlite/wal.ts';
import {READMARK_NOT_USED, type WalIndexHeader} from '../../sqlite/wal-index.ts';
import {ApplyError} from './error.ts';
import type {WalCore} from './wal-core.ts';

/**
 * A step copies so many runs of pages before it looks at the clock: more than a transaction adds, most of the
 * time.
 */
const RUNS_PER_STEP_MIN = 32;

/**
 * One run of SQLite's `walCheckpoint` (PASSIVE), in steps. Between steps transactions may be appended;
 * readers come and go all the time. It holds READ(0) from beginning to end, so nobody trusts the database
 * file alone meanwhile.
 */
export class WalCheckpoint {
  readonly #core: WalCore;
  readonly #mxSafeFrame: number;
  readonly #header: WalIndexHeader;
  /** For each page to copy two words: frame, pgno; ascending by pgno. */
  readonly #copies: Uint32Array;
  #next = 0;

  private constructor(core: WalCore, mxSafeFrame: number) {
    this.#core = core;
    this.#mxSafeFrame = mxSafeFrame;
    this.#header = core.header;
    this.#copies = latestFrames(core, mxSafeFrame);
  }

  /** Undefined when nothing can be copied now: all has been, or readers hold it back. */
  static begin(core: WalCore): WalCheckpoint | undefined {
    const {info, locks, files} = core;
    if (info.nBackfill >= core.header.mxFrame) return undefined;
    const mxSafeFrame = advanceReadMarks(core);
    if (info.nBackfill >= mxSafeFrame || !locks.tryReadMark(0)) return undefined;
    try {
      info.nBackfillAttempted = mxSafeFrame;
      // What is copied over the database must be in the WAL for certain, or a power failure would lose both.
      if (files.isSynced) files.disk.sync('follower-checkpoint:sync-wal', core.walFd);
      return new WalCheckpoint(core, mxSafeFrame);
    } catch (error) {
      locks.dropReadMark(0);
      throw error;
    }
  }

  /** Copies pages until `isTimeUp` says so, a few in any case. True when the checkpoint is over. */
  step(isTimeUp: () => boolean): boolean {
    try {
      while (this.#next < this.#copies.length) {
        for (let i = 0; i < RUNS_PER_STEP_MIN && this.#next < this.#copies.length; i++) this.#copyRun();
        if (this.#next < this.#copies.length && isTimeUp()) return false;
      }
      this.#finish();
    } catch (error) {
      this.abort();
      throw error;
    }
    this.abort();
    return true;
  }

  /** Lets go; what was copied does no harm, the WAL still has it all. */
  abort(): void {
    this.#core.locks.dropReadMark(0);
  }

  /** Copies the next pages that lie side by side in the database file. */
  #copyRun(): void {
    const {pageSize} = this.#header;
    const {buffer} = this.#core.files;
    const first = this.#copies[this.#next + 1];
    const countMax = Math.floor(buffer.length / pageSize);
    let count = 0;
    while (count < countMax && this.#copies[this.#next + 1] === first + count) {
      const position = frameOffset(this.#copies[this.#next] - 1, pageSize) + WAL_FRAME_HEADER_SIZE;
      const page = buffer.subarray(count * pageSize, (count + 1) * pageSize);
      const size = this.#core.files.disk.read(this.#core.walFd, page, position);
      if (size < pageSize) {
        throw new ApplyError('APPLY_CORRUPT', 'Cannot checkpoint: the WAL is shorter than its index says', {
          position,
        });
      }
      count++;
      this.#next += 2;
    }
    const bytes = buffer.subarray(0, count * pageSize);
    this.#core.files.writeDatabase('follower-checkpoint:copy', bytes, (first - 1) * pageSize);
  }

  #finish(): void {
    const {files, info, header} = this.#core;
    if (this.#mxSafeFrame === header.mxFrame) {
      files.truncateDatabase('follower-checkpoint:truncate', header.nPage * header.pageSize);
      files.syncDatabase('follower-checkpoint:sync-database');
    }
    info.nBackfill = this.#mxSafeFrame;
  }
}

/**
 * Moves the marks that no reader holds to the end, as SQLite does, and returns the last frame that may be
 * copied: above it are pages of which a reader still needs the version in the database file.
 */
function advanceReadMarks(core: WalCore): number {
  const {info, locks} = core;
  let mxSafeFrame = core.header.mxFrame;
  for (let i = 1; i <= 4; i++) {
    const mark = info.readMark(i);
    if (mxSafeFrame <= mark) continue;
    if (locks.tryReadMark(i)) {
      info.setReadMark(i, i === 1 ? mxSafeFrame : READMARK_NOT_USED);
      locks.dropReadMark(i);
    } else {
      mxSafeFrame = mark;
    }
  }
  return mxSafeFrame;
}

/** The last frame of each page from what is not copied yet to `mxSafeFrame`, in the order of the pages. */
function latestFrames(core: WalCore, mxSafeFrame: number): Uint32Array {
  const {table, info, header} = core;
  const seen = new Set<number>();
  const words = new Uint32Array(2 * (mxSafeFrame - info.nBackfill));
  let count = 0;
  for (let frame = mxSafeFrame; frame > info.nBackfill; frame--) {
    const pgno = table.pgnoOf(frame);
    if (pgno > header.nPage || seen.has(pgno)) continue;
    seen.add(pgno);
    words[count++] = frame;
    words[count++] = pgno;
  }
  // As 64-bit little-endian numbers the page is the upper half, and the built-in sort does no calls.
  new BigUint64Array(words.buffer, 0, count / 2).sort();
  return words.subarray(0, count);
}
