import {EMPTY_POSITION, type Position, type Txid} from '../ltx/position.ts';
import type {Weight} from './scheduler.ts';

/**
 * What a follower needs for a database:
 * - `checking`: to find out whether its log is the beginning of ours.
 * - `behind`: the log after `sent`.
 * - `snapshot`: all of it.
 * - `live`: nothing, everything has been sent; commits go out as they happen.
 * - `held`: it has transactions and we have none, so nothing is sent before we have one.
 */
export type Stage =
  | {readonly at: 'checking'; readonly position: Position; readonly term: bigint}
  | {readonly at: 'behind'; readonly weight: Weight}
  | {readonly at: 'snapshot'}
  | {readonly at: 'live'}
  | {readonly at: 'held'; readonly position: Position; readonly term: bigint};

/** A database as the primary sees it at one follower. Changed by the follower's session only. */
export class FollowedDatabase {
  readonly id: string;
  stage: Stage;
  /** All up to here has been sent. */
  sent: Txid = EMPTY_POSITION.txid;
  /** What the follower has said it has, of our history; `undefined` until its log is known to agree with ours. */
  acked: Position | undefined;
  /** Bytes that were sent and not yet taken. */
  inFlightBytes = 0;
  /** Txid before which the follower does not count as synced, or `undefined` when it did. */
  target: Txid | undefined;
  /** The log after this is kept while a snapshot is sent. */
  holdAfter: Txid | undefined;
  /** Set while somebody works on this database. */
  job: AbortController | undefined;
  /** The follower has asked for a copy because nothing else helped, so often since it last took something in. */
  copiesWanted = 0;
  /** Failures of our own log in a row. */
  failureCount = 0;

  constructor(id: string, stage: Stage) {
    this.id = id;
    this.stage = stage;
  }

  /** Up to which txid the log may be dropped as far as this follower goes; `undefined`: any. */
  get neededAfter(): Txid | undefined {
    if (this.holdAfter !== undefined) return this.holdAfter;
    return this.stage.at === 'live' || this.stage.at === 'behind' ? this.acked?.txid : undefined;
  }
}

/** Bytes in flight to one follower, over all its databases, and the rule of who may add to them. */
export class Window {
  readonly #databaseBytesMax: number;
  readonly #sessionBytesMax: number;
  #inFlightBytes = 0;

  constructor(databaseBytesMax: number, sessionBytesMax: number) {
    this.#databaseBytesMax = databaseBytesMax;
    this.#sessionBytesMax = sessionBytesMax;
  }

  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  get isFull(): boolean {
    return this.#inFlightBytes >= this.#sessionBytesMax;
  }

  /**
   * A database may use a quarter of what the others leave, so that some that are stalled never use up what the rest
   * needs; one frame is always allowed while there is room for the session as a whole.
   */
  allows(database: FollowedDatabase, size: number): boolean {
    if (this.isFull) return false;
    if (database.inFlightBytes === 0) return true;
    const others = this.#inFlightBytes - database.inFlightBytes;
    const max = Math.min(this.#databaseBytesMax, (this.#sessionBytesMax - others) / 4);
    return database.inFlightBytes + size <= max;
  }

  add(database: FollowedDatabase, size: number): void {
    database.inFlightBytes += size;
    this.#inFlightBytes += size;
  }

  /** False: the follower has taken more than it was sent. */
  take(database: FollowedDatabase, size: number): boolean {
    if (size > database.inFlightBytes) return false;
    database.inFlightBytes -= size;
    this.#inFlightBytes -= size;
    return true;
  }

  forget(database: FollowedDatabase): void {
    this.#inFlightBytes -= database.inFlightBytes;
    database.inFlightBytes = 0;
  }
}
