import type {Position, Txid} from '../ltx/position.ts';
import type {DatabaseState} from './replication-source.ts';
import type {RewindReason} from './wire.ts';

/** What a large transfer will hold. */
export type LargeInfo =
  | {
      /** Whole LTX records back to back, by `writeRecord`. */
      readonly kind: 'record';
      readonly minTxid: Txid;
      readonly maxTxid: Txid;
      /** Bytes. */
      readonly size: number;
    }
  | {
      /** Runs of pages by `writePages`, then by `writeRecord` the records from `from` on that make them consistent. */
      readonly kind: 'snapshot';
      readonly from: Position;
      readonly fromTerm: bigint;
      readonly pageSize: number;
      readonly pageCount: number;
    };

/** A transfer that is spooled to disk and applied as one transaction by `finish`. Calls never overlap. */
export interface LargeTransfer {
  /** Whole pages from `pgno` (1-based) on. The bytes are only valid until the promise settles. */
  writePages(pgno: number, pages: Uint8Array): Promise<void>;
  writeRecord(chunk: Uint8Array): Promise<void>;
  /** Verifies all of it, then applies it: readers see the database as before, then as after. */
  finish(): Promise<Position>;
  /** Forgets what was written. Nothing else is called after `finish` or `abort`. */
  abort(): Promise<void>;
}

/**
 * What a follower's side of a stream does to its databases. Implemented over the engine. Calls for one database never
 * overlap; calls for several do. What rejects with a `code` of `LTX_*`, `LOG_*` or `*POSITION*` is a record that does
 * not fit: the stream asks for the database again from `database(id).position`.
 */
export interface ReplicationSink {
  readonly nodeId: string;
  /** The cluster this node belongs to, or `undefined` when it has never joined one. */
  clusterId(): string | undefined;
  adoptCluster(clusterId: string): Promise<void>;
  /** The highest term this node has seen, kept over restarts. */
  termSeen(): bigint;
  adoptTerm(term: bigint): Promise<void>;
  databases(): Iterable<DatabaseState>;
  database(id: string): DatabaseState | undefined;
  /** Makes the database known under a free name. Apps need not see it before its first transaction. */
  create(id: string, name: string): Promise<void>;
  /** The new name is free. */
  rename(id: string, name: string): Promise<void>;
  drop(id: string): Promise<void>;
  /** The primary neither knows nor has dropped this database: it is kept aside, its name becomes free, and reported. */
  orphan(id: string): Promise<void>;
  /**
   * Applies one or more whole LTX records, back to back in `records`, each as one transaction, and returns the position
   * after the last. All is verified before anything of a record changes. `records` is the callee's to keep. May wait for
   * readers, and rejects soon when `signal` aborts meanwhile: the stream has ended, and nobody else may use this database
   * before the call has settled.
   */
  apply(id: string, records: Uint8Array, signal: AbortSignal): Promise<Position>;
  /** `signal` as for `apply`, for all of the transfer's calls. After it has aborted, `abort` is still called. */
  beginLarge(id: string, info: LargeInfo, signal: AbortSignal): Promise<LargeTransfer>;
  /**
   * The primary does not share this log's end. What was not replicated is kept in `lost/` and reported; a snapshot
   * follows. May be called again for the same log, when the stream broke in between.
   */
  rewind(id: string, reason: RewindReason): Promise<void>;
  /** Everything the primary had committed at `timestampMs` (its clock) is applied. */
  primaryHeard(timestampMs: number): void;
}
