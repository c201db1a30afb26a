import {AssertionError, assert, unreachable} from '../lib/assert.ts';
import {EMPTY_POSITION, formatPosition, type Position} from '../ltx/position.ts';
import {ClusterError, errorCode} from './cluster-error.ts';
import type {LargeInfo, LargeTransfer, ReplicationSink} from './replication-sink.ts';
import type {StreamLogger} from './stream-logger.ts';
import type {Frame, FrameOf} from './wire.ts';

/** Frames that concern the content of one database, in the order in which they came. */
export type LaneFrame = FrameOf<
  'rewind' | 'records' | 'record-begin' | 'snapshot-begin' | 'pages' | 'chunk' | 'end' | 'abort' | 'restart'
>;

const laneFrameTypes: ReadonlySet<string> = new Set<LaneFrame['type']>([
  'rewind',
  'records',
  'record-begin',
  'snapshot-begin',
  'pages',
  'chunk',
  'end',
  'abort',
  'restart',
]);

export function isLaneFrame(frame: Frame): frame is LaneFrame {
  return laneFrameTypes.has(frame.type);
}

/** Bytes of records or pages in a frame: what counts against the windows on both ends. */
export function payloadSize(frame: Frame): number {
  return 'bytes' in frame ? frame.bytes.length : 0;
}

/** What a lane needs of the connection that it belongs to. */
export interface LaneHost {
  readonly sink: ReplicationSink;
  readonly log: StreamLogger;
  /** Aborted when the connection has ended: what is still queued is dropped. */
  readonly signal: AbortSignal;
  /** Resolves when the names of all databases are settled, or the connection has ended. */
  readonly started: Promise<void>;
  acknowledge(id: string, position: Position): void;
  /** The frame was dealt with, one way or the other. */
  release(id: string, frame: LaneFrame): void;
  resync(frame: FrameOf<'resync'>): void;
  /** Ends the connection. */
  fail(error: Error): void;
  /** Nothing waits in this lane, and nothing is remembered of it. */
  onIdle(id: string): void;
}

type Task =
  | {readonly kind: 'frame'; readonly frame: LaneFrame}
  | {readonly kind: 'name' | 'drop'; readonly run: () => Promise<void>};

/** `ignoring`: something could not be applied, and what comes before the primary's `restart` is of no use. */
type LaneState =
  | {readonly at: 'open'}
  | {readonly at: 'transfer'; readonly transfer: LargeTransfer; readonly info: LargeInfo}
  | {readonly at: 'ignoring'};

const BATCH_BYTES_MAX = 1024 * 1024;
const FAULTS_BEFORE_SNAPSHOT = 3;
const RESYNC_DELAY_MIN_MS = 100;
const RESYNC_DELAY_MAX_MS = 5_000;
/** A copy of everything that does not help either is not to be had too often. */
const COPY_DELAY_MAX_MS = 60_000;

/**
 * Applies what comes for one database, one after the other. A lane that waits for its database holds up no other lane;
 * small records that come meanwhile are applied together.
 */
export class ApplyLane {
  readonly #id: string;
  readonly #host: LaneHost;
  #tasks: Task[] = [];
  #state: LaneState = {at: 'open'};
  #running: Promise<void> | undefined;
  #failureCount = 0;
  #faultCount = 0;
  #resyncTimer: NodeJS.Timeout | undefined;

  constructor(id: string, host: LaneHost) {
    this.#id = id;
    this.#host = host;
  }

  /** Nothing waits or runs, and nothing is expected of the primary. */
  get isIdle(): boolean {
    return this.#running === undefined && this.#state.at === 'open';
  }

  push(task: Task): void {
    this.#tasks.push(task);
    // Rejects for bugs of ours only, which end the process.
    this.#running ??= this.#drain();
  }

  /** After the connection has ended: resolves when nothing is being done any more. */
  async close(): Promise<void> {
    assert(this.#host.signal.aborted, 'lanes are closed after their connection');
    clearTimeout(this.#resyncTimer);
    await this.#running;
    await this.#abortTransfer();
  }

  async #drain(): Promise<void> {
    await this.#host.started;
    while (this.#tasks.length > 0 && !this.#host.signal.aborted) {
      const tasks = this.#tasks;
      this.#tasks = [];
      await this.#runAll(tasks);
    }
    await this.#runAll(this.#tasks.splice(0)); // After the end: lets go of them, and nothing more.
    this.#running = undefined;
    if (this.#state.at === 'open' && this.#failureCount === 0) this.#host.onIdle(this.#id);
  }

  async #runAll(tasks: readonly Task[]): Promise<void> {
    for (let index = 0; index < tasks.length; ) {
      const task = tasks[index];
      if (task.kind !== 'frame') {
        index++;
        if (task.kind === 'drop') await this.#forget();
        await task.run();
        continue;
      }
      const batch = batchFrom(tasks, index);
      index += batch.length;
      try {
        if (!this.#host.signal.aborted) await this.#takeIn(batch);
      } finally {
        for (const frame of batch) this.#host.release(this.#id, frame);
      }
    }
  }

  /** Nothing that came before concerns a dropped database any more. */
  async #forget(): Promise<void> {
    clearTimeout(this.#resyncTimer);
    await this.#abortTransfer();
    this.#state = {at: 'open'};
    this.#failureCount = 0;
    this.#faultCount = 0;
  }

  async #takeIn(batch: readonly LaneFrame[]): Promise<void> {
    if (this.#state.at === 'ignoring' && batch[0].type !== 'restart') return;
    try {
      await this.#handle(batch);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      await this.#failed(error);
    }
  }

  async #handle(batch: readonly LaneFrame[]): Promise<void> {
    const {sink} = this.#host;
    const [frame] = batch;
    switch (frame.type) {
      case 'rewind':
        this.#expect('open', frame);
        return await sink.rewind(this.#id, frame.reason);
      case 'records':
        this.#expect('open', frame);
        return this.#applied(await sink.apply(this.#id, joinRecords(batch), this.#host.signal));
      case 'record-begin':
        return await this.#begin(frame, {
          kind: 'record',
          minTxid: frame.minTxid,
          maxTxid: frame.maxTxid,
          size: frame.size,
        });
      case 'snapshot-begin': {
        const {from, fromTerm, pageSize, pageCount} = frame;
        return await this.#begin(frame, {kind: 'snapshot', from, fromTerm, pageSize, pageCount});
      }
      case 'pages':
        return await this.#writePages(frame);
      case 'chunk':
        return await this.#expectTransfer(frame).transfer.writeRecord(frame.bytes);
      case 'end':
        return await this.#finish(frame);
      case 'abort':
        return await this.#abortTransfer();
      case 'restart':
        await this.#abortTransfer();
        this.#state = {at: 'open'};
        return;
      default:
        unreachable(frame);
    }
  }

  async #begin(frame: LaneFrame, info: LargeInfo): Promise<void> {
    this.#expect('open', frame);
    const {sink, signal} = this.#host;
    this.#state = {at: 'transfer', transfer: await sink.beginLarge(this.#id, info, signal), info};
  }

  async #writePages(frame: FrameOf<'pages'>): Promise<void> {
    const {transfer, info} = this.#expectTransfer(frame);
    const {pgno, bytes} = frame;
    if (info.kind !== 'snapshot' || bytes.length % info.pageSize !== 0) throw outOfOrder(frame, info.kind);
    const pgnoLast = pgno + bytes.length / info.pageSize - 1;
    if (pgnoLast > info.pageCount) throw outOfOrder(frame, `a snapshot of ${info.pageCount} pages`);
    await transfer.writePages(pgno, bytes);
  }

  async #finish(frame: FrameOf<'end'>): Promise<void> {
    const {transfer} = this.#expectTransfer(frame);
    this.#state = {at: 'open'};
    const position = await transfer.finish();
    if (position.txid !== frame.txid) throw outOfOrder(frame, formatPosition(position));
    this.#applied(position);
  }

  #applied(position: Position): void {
    this.#failureCount = 0;
    this.#faultCount = 0;
    this.#host.acknowledge(this.#id, position);
  }

  #expect(at: LaneState['at'], frame: LaneFrame): void {
    if (this.#state.at !== at) throw outOfOrder(frame, this.#state.at);
  }

  #expectTransfer(frame: LaneFrame): LaneState & {readonly at: 'transfer'} {
    if (this.#state.at !== 'transfer') throw outOfOrder(frame, this.#state.at);
    return this.#state;
  }

  async #abortTransfer(): Promise<void> {
    if (this.#state.at !== 'transfer') return;
    const {transfer} = this.#state;
    this.#state = {at: 'open'};
    try {
      await transfer.abort();
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      this.#host.log.warn('transfer not cleaned up', {id: this.#id, code: errorCode(error), error});
    }
  }

  async #failed(error: unknown): Promise<void> {
    await this.#abortTransfer();
    if (this.#host.signal.aborted) return;
    if (error instanceof ClusterError) {
      this.#host.fail(error);
      return;
    }
    const code = errorCode(error);
    this.#failureCount++;
    if (isRecordFault(code)) this.#faultCount++;
    const want = this.#faultCount >= FAULTS_BEFORE_SNAPSHOT ? 'snapshot' : 'log';
    this.#host.log.error('database not applied', {
      id: this.#id,
      code,
      error,
      failureCount: this.#failureCount,
      want,
    });
    this.#state = {at: 'ignoring'};
    const delayMs =
      this.#failureCount === 1
        ? 0
        : Math.min(
            want === 'snapshot' ? COPY_DELAY_MAX_MS : RESYNC_DELAY_MAX_MS,
            RESYNC_DELAY_MIN_MS * 2 ** Math.min(this.#failureCount - 2, 10),
          );
    this.#resyncTimer = setTimeout(() => this.#resync(want), delayMs);
  }

  #resync(want: 'log' | 'snapshot'): void {
    const {position, term} = this.#host.sink.database(this.#id) ?? {position: EMPTY_POSITION, term: 0n};
    this.#host.resync({type: 'resync', id: this.#id, position, term, want});
  }
}

/** The frame at `index`, with the `records` that follow on it where it is one itself. */
function batchFrom(tasks: readonly Task[], index: number): LaneFrame[] {
  const first = tasks[index];
  assert(first.kind === 'frame', 'a batch begins with a frame');
  const batch = [first.frame];
  if (first.frame.type !== 'records') return batch;
  let {maxTxid} = first.frame;
  let size = first.frame.bytes.length;
  for (let next = index + 1; next < tasks.length; next++) {
    const task = tasks[next];
    if (task.kind !== 'frame' || task.frame.type !== 'records') break;
    size += task.frame.bytes.length;
    if (task.frame.minTxid !== maxTxid + 1n || size > BATCH_BYTES_MAX) break;
    maxTxid = task.frame.maxTxid;
    batch.push(task.frame);
  }
  return batch;
}

/** Always a copy of its own, because a frame's bytes may be part of a larger buffer of the socket's. */
function joinRecords(batch: readonly LaneFrame[]): Uint8Array {
  const size = batch.reduce((sum, frame) => sum + payloadSize(frame), 0);
  const joined = new Uint8Array(size);
  let at = 0;
  for (const frame of batch) {
    assert(frame.type === 'records', 'only records are joined');
    joined.set(frame.bytes, at);
    at += frame.bytes.length;
  }
  return joined;
}

function isRecordFault(code: string | undefined): boolean {
  return code !== undefined && (/^(LTX|LOG)_/.test(code) || code.includes('POSITION'));
}

function outOfOrder(frame: LaneFrame, state: string): ClusterError {
  return new ClusterError('CLUSTER_PROTOCOL', `Cannot take "${frame.type}" of database: ${state}`, {
    id: frame.id,
  });
}
