import type {DirtyFile} from './dirty-file.ts';
import type {Slices, TransactionPlan} from './record-job.ts';
import type {TransactionPlans} from './transaction-plans.ts';
import type {WalTracker, WalTransaction} from './wal-tracker.ts';

/** One record to be made of what apps wrote, as soon as those before it are. */
export interface QueuedWork {
  /** What has to wait meanwhile. The WAL may always grow. */
  readonly holds: 'wal-overwrites' | 'file-writes';
  /** Whether the record is published when it is done, or by `publish` after the journal is gone. */
  readonly publishes: boolean;
  /** What was dirty goes along: nothing is when it is published. */
  readonly takesDirty: boolean;
  readonly plan: () => Slices<TransactionPlan | undefined>;
  /** Work on the file that failed is not kept: what it was to look at becomes dirty. Without it, it is kept. */
  readonly giveUp?: () => void;
}

/** Makes the work for whatever has to be captured. What it looks at in the WAL is fixed at once, what is in the files when its turn comes. */
export class CaptureWork {
  readonly #plans: TransactionPlans;
  readonly #tracker: WalTracker;
  readonly #dirtyFile: DirtyFile;

  constructor(plans: TransactionPlans, tracker: WalTracker, dirtyFile: DirtyFile) {
    this.#plans = plans;
    this.#tracker = tracker;
    this.#dirtyFile = dirtyFile;
  }

  wal(transaction: WalTransaction, undone: readonly Uint32Array[]): QueuedWork {
    return {
      holds: undone.length > 0 ? 'file-writes' : 'wal-overwrites',
      publishes: true,
      takesDirty: false,
      plan: () => this.#plans.wal(transaction, undone),
    };
  }

  /** A transaction in the WAL builds on what was written to the database file without a journal: one record has both. */
  mixed(transaction: WalTransaction, undone: readonly Uint32Array[]): QueuedWork {
    const plan = () => {
      const {pages} = this.#dirtyFile;
      return pages === undefined || pages.isUnknown
        ? this.#plans.scan(transaction.end)
        : this.#plans.wal(transaction, [...undone, pages.pages()]);
    };
    return {holds: 'file-writes', publishes: true, takesDirty: true, plan};
  }

  /** What is dirty in the database file, which is dirty still where that fails. */
  file(publishes: boolean): QueuedWork {
    const {committedCount} = this.#tracker;
    const plan = () => this.#plans.file(committedCount);
    return {holds: 'file-writes', publishes, takesDirty: true, plan, giveUp: () => undefined};
  }

  all(): QueuedWork {
    const {committedCount} = this.#tracker;
    const plan = () => this.#plans.scan(committedCount);
    return {holds: 'file-writes', publishes: true, takesDirty: true, plan, giveUp: this.#giveUp};
  }

  /** These pages, compared with what the log says. */
  pages(pgnos: readonly Uint32Array[]): QueuedWork {
    const {committedCount} = this.#tracker;
    const plan = () => this.#plans.pages(pgnos, committedCount);
    return {holds: 'file-writes', publishes: true, takesDirty: false, plan, giveUp: this.#giveUp};
  }

  readonly #giveUp = () => this.#dirtyFile.noteUnknown();
}
