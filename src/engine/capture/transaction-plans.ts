import type {DatabaseStore} from '../database-store.ts';
import type {DirtyPages} from './dirty-pages.ts';
import {PageCursor} from './page-cursor.ts';
import {type FileShape, fileShape, pageRange, pagesOfCommit, readPageAt, walPlace} from './plans.ts';
import type {Slices, TransactionPlan} from './record-job.ts';
import type {SmallTransactionsOptions} from './small-transaction.ts';
import type {WalTransaction} from './wal-tracker.ts';

export interface PlansOptions extends SmallTransactionsOptions {
  readonly store: () => DatabaseStore | undefined;
  readonly dirty: () => DirtyPages | undefined;
  /** Page size that the journal told, 0 if none. */
  readonly journalPageSize: () => number;
}

type PlanSlices = Slices<TransactionPlan | undefined>;

/** Says what belongs into a record: which pages, and where their content is. `undefined`: there is no database yet. */
export class TransactionPlans {
  readonly #options: PlansOptions;

  constructor(options: PlansOptions) {
    this.#options = options;
  }

  /** A transaction in the WAL; the pages in `others` go along as they are before it, where it does not write them. */
  *wal(transaction: WalTransaction, others: readonly Iterable<number>[]): PlanSlices {
    const {tracker, files} = this.#options;
    const common = this.#common(tracker.pageSize);
    const {first, end, commit} = transaction;
    const cursor = new PageCursor();
    for (const pgnos of others) yield* cursor.add(pgnos);
    yield* cursor.add(tracker.pgnosOf(first, end), first);
    cursor.advance();
    return {
      ...common,
      commit,
      pgnos: pagesOfCommit(cursor, this.#countBefore(common.pageSize), commit, common.lockPgno),
      readPage: (pgno, target) => {
        const written = cursor.seek(pgno);
        readPageAt(files, written >= 0 ? written : tracker.findFrame(pgno, first), pgno, target);
      },
      wal: walPlace(tracker, first, end),
    };
  }

  /** The dirty pages of the database file, as `pages`. */
  *file(committedCount: number): PlanSlices {
    const dirty = this.#options.dirty();
    return dirty === undefined || dirty.isUnknown
      ? yield* this.scan(committedCount)
      : yield* this.pages([dirty.pages()], committedCount);
  }

  /** The pages `pgnos`, in whichever file they are, as of the first `committedCount` frames of the WAL. */
  *pages(pgnos: readonly Iterable<number>[], committedCount: number): PlanSlices {
    const {tracker, files} = this.#options;
    const shape = this.#shape(committedCount);
    if (shape === undefined) return undefined;
    const common = this.#common(shape.pageSize);
    const cursor = new PageCursor();
    for (const some of pgnos) yield* cursor.add(some);
    cursor.advance();
    return {
      ...common,
      commit: shape.pageCount,
      pgnos: pagesOfCommit(cursor, this.#countBefore(shape.pageSize), shape.pageCount, common.lockPgno),
      readPage: (pgno, target) => readPageAt(files, tracker.findFrame(pgno, committedCount), pgno, target),
      wal: committedCount > 0 ? walPlace(tracker, 0, committedCount) : undefined,
    };
  }

  /** Every page of the database, as of the first `committedCount` frames of the WAL. */
  *scan(committedCount: number): PlanSlices {
    const {tracker, files} = this.#options;
    const shape = this.#shape(committedCount);
    if (shape === undefined) return undefined;
    const common = this.#common(shape.pageSize);
    const cursor = yield* PageCursor.over(tracker.pgnosOf(0, committedCount), 0);
    return {
      ...common,
      commit: shape.pageCount,
      pgnos: pageRange(1, shape.pageCount, common.lockPgno),
      readPage: (pgno, target) => readPageAt(files, cursor.seek(pgno), pgno, target),
      wal: committedCount > 0 ? walPlace(tracker, 0, committedCount) : undefined,
      isWhole: true,
    };
  }

  #common(pageSize: number) {
    const {term, nowMs, compress, hasher, lockBytes} = this.#options;
    return {pageSize, term, timestampMs: nowMs(), compress, hasher, lockPgno: lockBytes.lockPgno(pageSize)};
  }

  /** Shape of what a reader would see: of the file, or of the last commit in the WAL. */
  #shape(committedCount: number): FileShape | undefined {
    const {tracker, files, store, journalPageSize} = this.#options;
    if (committedCount > 0) return {pageSize: tracker.pageSize, pageCount: tracker.commitAt(committedCount)};
    return fileShape(files, tracker.pageSize || journalPageSize() || (store()?.checksums.pageSize ?? 0));
  }

  #countBefore(pageSize: number): number {
    const checksums = this.#options.store()?.checksums;
    return checksums === undefined || checksums.pageSize !== pageSize ? 0 : checksums.pageCount;
  }
}
