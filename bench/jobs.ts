/** What the load generator, a process of its own, is told to do. Every path is a database's. */
export type Job =
  | InsertJob
  | {readonly kind: 'bulk'; readonly path: string; readonly rowCount: number}
  | {
      readonly kind: 'fill';
      readonly path: string;
      readonly rowCount: number;
      readonly rowBytes: number;
      readonly journalMode: JournalMode;
    }
  | {readonly kind: 'reads'; readonly path: string; readonly rowCount: number; readonly durationMs: number}
  | {readonly kind: 'write-on'; readonly path: string; readonly perSecond: number}
  | {readonly kind: 'read-on'; readonly path: string; readonly perSecond: number}
  | {readonly kind: 'watch'; readonly path: string}
  | {readonly kind: 'vacuum'; readonly path: string}
  | {readonly kind: 'count'; readonly path: string};

export type JournalMode = 'WAL' | 'DELETE';

export interface InsertJob {
  readonly kind: 'insert';
  readonly path: string;
  readonly journalMode: JournalMode;
  readonly synchronous: 'NORMAL' | 'FULL';
  readonly durationMs: number;
}

/** `perSecond` of a `write-on` job that goes as fast as it can. */
export const UNPACED = 0;

/** What came of a job that measures a rate. */
export interface RateResult {
  readonly perSecond: number;
}

/** What a `write-on` job saw until it was stopped. Times are those of the machine's monotonic clock, in milliseconds. */
export interface WriterResult {
  readonly commitCount: number;
  readonly elapsedMs: number;
  readonly errors: readonly string[];
  /** When the commit of row `firstId + i` returned; the newest 1,000,000 of them. */
  readonly firstId: number;
  readonly committedAtMs: readonly number[];
  /** The longest time from one commit to the next beyond the pace, and the longest commit. */
  readonly pauseMaxMs: number;
  readonly commitMaxMs: number;
}

/** What a `watch` job saw: when a reader first found row `firstId + i`. */
export interface WatchResult {
  readonly firstId: number;
  readonly seenAtMs: readonly number[];
}

export interface CountResult {
  readonly rowCount: number;
  readonly integrity: string;
}

export type Message =
  | {readonly type: 'ready'}
  | {readonly type: 'done'; readonly result: unknown}
  | {readonly type: 'failed'; readonly text: string};

/** Milliseconds of the machine's monotonic clock: the same for every process. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
