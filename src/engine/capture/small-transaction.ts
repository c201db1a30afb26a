import type {PageHasher} from '../../ltx/checksum.ts';
import type {LockBytes} from '../../sqlite/lock-bytes.ts';
import type {DatabaseStore} from '../database-store.ts';
import type {BackingFiles} from './backing-files.ts';
import {readFramePage, walPlace} from './plans.ts';
import {type PreparedRecord, RecordBuild} from './record-job.ts';
import type {WalTracker, WalTransaction} from './wal-tracker.ts';

export interface SmallTransactionsOptions {
  readonly files: BackingFiles;
  readonly tracker: WalTracker;
  readonly hasher: PageHasher;
  readonly term: bigint;
  readonly nowMs: () => number;
  readonly compress: boolean;
  readonly lockBytes: LockBytes;
}

const FRAMES_MAX = 16;

/**
 * The short way from the WAL into the log for what nearly every transaction is: a few frames, no page taken away, every
 * new page among them. It does what `TransactionPlans.wal` and `prepareRecord` do, without what only large ones need.
 */
export class SmallTransactions {
  readonly #options: SmallTransactionsOptions;
  /** Frames of the transaction, by page number: the last one of each page. */
  readonly #frames = new Uint32Array(FRAMES_MAX);
  readonly #pgnos = new Uint32Array(FRAMES_MAX);
  #count = 0;
  #page = new Uint8Array(0);

  constructor(options: SmallTransactionsOptions) {
    this.#options = options;
  }

  /** Whether this is a transaction for here; `prepare` must follow at once. */
  accepts(store: DatabaseStore, {first, end, commit}: WalTransaction): boolean {
    const {tracker, lockBytes} = this.#options;
    const {pageSize, pageCount} = store.checksums;
    if (end - first > FRAMES_MAX || pageSize !== tracker.pageSize || commit < pageCount) return false;
    this.#sort(first, end, commit);
    const lockPgno = lockBytes.lockPgno(pageSize);
    let newCount = 0;
    for (let i = 0; i < this.#count; i++) {
      if (this.#pgnos[i] === lockPgno) return false;
      if (this.#pgnos[i] > pageCount) newCount++;
    }
    return newCount === commit - pageCount;
  }

  /** As `prepareRecord`: the record, unpublished, or undefined where nothing is different. */
  prepare(store: DatabaseStore, {first, end, commit}: WalTransaction): PreparedRecord | undefined {
    const {files, tracker, term, nowMs, compress, hasher} = this.#options;
    const {pageSize} = tracker;
    const wal = walPlace(tracker, first, end);
    const build = new RecordBuild(store, {
      pageSize,
      commit,
      wal,
      term,
      timestampMs: nowMs(),
      compress,
      hasher,
    });
    if (this.#page.length !== pageSize) this.#page = new Uint8Array(pageSize);
    try {
      for (let i = 0; i < this.#count; i++) {
        const frame = this.#frames[i];
        const checked = tracker.pageJustChecked(frame);
        if (checked === undefined) readFramePage(files, frame, this.#page);
        build.add(this.#pgnos[i], checked ?? this.#page);
      }
      return build.finish();
    } catch (error) {
      build.abort();
      throw error;
    }
  }

  /** Sorts the frames' pages by insertion; those above `commit` are left out. */
  #sort(first: number, end: number, commit: number): void {
    const {tracker} = this.#options;
    const [pgnos, frames] = [this.#pgnos, this.#frames];
    this.#count = 0;
    for (let frame = first; frame < end; frame++) {
      const pgno = tracker.pgnoOf(frame);
      if (pgno > commit) continue;
      let at = this.#count;
      while (at > 0 && pgnos[at - 1] > pgno) at--;
      if (at === 0 || pgnos[at - 1] !== pgno) {
        pgnos.copyWithin(at + 1, at, this.#count);
        frames.copyWithin(at + 1, at, this.#count);
        this.#count++;
        pgnos[at] = pgno;
        frames[at] = frame;
      } else frames[at - 1] = frame;
    }
  }
}
