import type {Position, Txid} from '../ltx/position.ts';

/** A database as its log stands. */
export interface DatabaseState {
  /** 32 lower-case hex digits. */
  readonly id: string;
  readonly name: string;
  readonly position: Position;
  /** Term of the last transaction. */
  readonly term: bigint;
  /** Bytes; 0 while the database is empty. */
  readonly pageSize: number;
  /** Pages. */
  readonly commit: number;
}

export interface CommittedEvent {
  readonly type: 'committed';
  readonly id: string;
  readonly position: Position;
  readonly term: bigint;
  readonly timestampMs: number;
  /** The one LTX record of this transaction, if it is at most `PAYLOAD_SIZE_MAX` bytes. Never changed afterwards. */
  readonly record?: Uint8Array;
  /** Bytes of the record, also where it isn't given. */
  readonly size: number;
}

export interface CatalogueEvent {
  readonly type: 'created' | 'renamed' | 'dropped';
  readonly id: string;
  readonly name: string;
}

/** What `databases()`, `database()` and the log say already holds what the event tells. */
export type SourceEvent = CommittedEvent | CatalogueEvent;

/**
 * `yes`: the log holds that transaction, or it is the log's base. `no`: the log holds another one in its place, or
 * ends before it. `unknown`: the log begins after it.
 */
export type Agreement = 'yes' | 'no' | 'unknown';

/** A part of the log: whole LTX records back to back, either as they stand or compacted into one. */
export interface LogPart {
  readonly minTxid: Txid;
  readonly maxTxid: Txid;
  /** Bytes of all chunks together. */
  readonly size: number;
  /** Each at most `PAYLOAD_SIZE_MAX` bytes, and not changed before the next one is asked for. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Gives back what stands behind `chunks`, whether they were read or not. Whoever got the part calls it once. */
  close(): Promise<void>;
}

/** `cheapest`: nothing, where a copy of the database is shorter. `log`: the log, however long, since only that will do. */
export type CatchUpChoice = 'cheapest' | 'log';

/** A copy of a database's pages, read while writes go on. */
export interface FuzzySnapshot {
  /** Every page is at least as new as this. */
  readonly from: Position;
  readonly fromTerm: bigint;
  readonly pageSize: number;
  readonly pageCount: number;
  /** Runs of consecutive pages, ascending; each at most `PAYLOAD_SIZE_MAX` bytes. */
  readonly chunks: AsyncIterable<{readonly pgno: number; readonly pages: Uint8Array}>;
  /** Once all chunks are read: no page is newer than this, so the log from `from` to here makes them consistent. */
  until(): Position;
  /** Ends the reading, wherever it stands. Whoever got the snapshot calls it once. */
  close(): Promise<void>;
}

/** What the primary's side of the streams needs to know of the databases. Implemented over the engine. */
export interface ReplicationSource {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly term: bigint;
  databases(): Iterable<DatabaseState>;
  database(id: string): DatabaseState | undefined;
  /** IDs of databases known to have been dropped; bounded by the implementation. */
  droppedIds(): ReadonlySet<string>;
  /** Calls `listener` for each event, in order, until the returned function is called. */
  onChange(listener: (event: SourceEvent) => void): () => void;
  agrees(id: string, position: Position, term: bigint): Promise<Agreement>;
  /**
   * The records that follow `after`, `minTxid` being `after + 1`: as they stand when they are few, one compacted record
   * when they are many. Only asked for when the database's position is past `after`. `undefined`: the log no longer
   * reaches back that far, it is longer than `choice` allows, or the database is gone.
   */
  catchUp(id: string, after: Txid, choice: CatchUpChoice, signal: AbortSignal): Promise<LogPart | undefined>;
  /** `undefined`: there is no such database, or nothing in it. */
  snapshot(id: string, signal: AbortSignal): Promise<FuzzySnapshot | undefined>;
  /** Up to which txid (inclusive) every connected follower has each database: the log after it is still needed. */
  setNeeded(needed: ReadonlyMap<string, Txid>): void;
}
