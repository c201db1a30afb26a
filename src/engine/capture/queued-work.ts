import type {Slices, TransactionPlan} from './record-job.ts';

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
