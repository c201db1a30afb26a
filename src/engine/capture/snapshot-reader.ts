import {assert} from '../../lib/assert.ts';
import type {Position} from '../../ltx/position.ts';
import type {CapturedDatabase} from './captured-database.ts';
import {readFramePage} from './plans.ts';

export interface SnapshotStart {
  readonly from: Position;
  readonly fromTerm: bigint;
  readonly pageSize: number;
  readonly pageCount: number;
}

export interface PageRun {
  readonly pgno: number;
  readonly pages: Uint8Array<ArrayBuffer>;
}

const RUN_BYTES_MAX = 256 * 1024;
/** Frames that are looked at per turn. */
const FRAMES_PER_TURN = 16_384;
/** Nothing to read before an open transaction is over. */
const IDLE = {pgno: 0, pages: new Uint8Array(0)};

/**
 * Reads all pages of a database while writes go on. Each page is at least as new as `start.from`, so that the log from
 * there on makes them consistent. A page that an open transaction has written is read again when that one is over: a
 * rollback would leave no record of it.
 */
export class SnapshotReader {
  readonly start: SnapshotStart;
  readonly #database: CapturedDatabase;
  readonly #lockPgno: number;
  readonly #frames = new Map<number, number>();
  #framesSeen = 0;
  #generation = '';
  #pgno = 1;
  #again: number[] = [];

  /** Throws nothing for an empty database: it has no pages then. */
  constructor(database: CapturedDatabase, lockPgno: number) {
    const {store} = database;
    assert(store !== undefined, 'a snapshot is taken of a database that has a log');
    const {checksums} = store;
    this.#database = database;
    this.#lockPgno = lockPgno;
    this.start = {
      from: store.position,
      fromTerm: store.term,
      pageSize: checksums.pageSize,
      pageCount: checksums.pageCount,
    };
  }

  /** The page size changed, or the database is gone: what was read is of no use. */
  get isVoid(): boolean {
    return this.#database.store?.checksums.pageSize !== this.start.pageSize;
  }

  /** The next run of pages; without pages when it has to wait for a transaction; undefined at the end. */
  next(): PageRun | undefined {
    if (!this.#followWal()) return IDLE;
    if (this.#pgno <= this.start.pageCount) return this.#nextRun();
    const index = this.#again.findIndex(pgno => !this.#database.dirtyFile.has(pgno));
    if (index < 0) return this.#again.length > 0 ? IDLE : undefined;
    const [pgno] = this.#again.splice(index, 1);
    const pages = new Uint8Array(this.start.pageSize);
    this.#read(pgno, pages);
    return {pgno, pages};
  }

  #nextRun(): PageRun {
    const {pageSize, pageCount} = this.start;
    if (this.#pgno === this.#lockPgno) this.#pgno++;
    const first = this.#pgno;
    let count = Math.min(Math.floor(RUN_BYTES_MAX / pageSize), pageCount - first + 1);
    if (first < this.#lockPgno && first + count > this.#lockPgno) count = this.#lockPgno - first;
    const pages = new Uint8Array(Math.max(0, count) * pageSize);
    this.#database.files.readMain(pages, (first - 1) * pageSize);
    for (let i = 0; i < count; i++)
      this.#overlay(first + i, pages.subarray(i * pageSize, (i + 1) * pageSize));
    this.#pgno = first + count;
    return {pgno: first, pages};
  }

  #overlay(pgno: number, page: Uint8Array): void {
    const frame = this.#frames.get(pgno);
    if (frame !== undefined) readFramePage(this.#database.files, frame, page);
    else if (this.#database.dirtyFile.has(pgno)) this.#again.push(pgno);
  }

  #read(pgno: number, page: Uint8Array): void {
    const frame = this.#frames.get(pgno);
    if (frame !== undefined) readFramePage(this.#database.files, frame, page);
    else this.#database.files.readMainPage(pgno, page);
  }

  /** Which frame of the WAL holds the newest committed version of each page. Returns whether all are known. */
  #followWal(): boolean {
    const {tracker} = this.#database;
    const generation = `${tracker.header?.salt1}/${tracker.header?.salt2}`;
    if (generation !== this.#generation || tracker.committedCount < this.#framesSeen) {
      this.#frames.clear();
      this.#framesSeen = 0;
      this.#generation = generation;
    }
    const until = Math.min(tracker.committedCount, this.#framesSeen + FRAMES_PER_TURN);
    for (; this.#framesSeen < until; this.#framesSeen++)
      this.#frames.set(tracker.pgnoOf(this.#framesSeen), this.#framesSeen);
    return this.#framesSeen === tracker.committedCount;
  }
}
