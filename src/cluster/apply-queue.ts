import type {Position} from '../ltx/position.ts';
import {ApplyLane, type LaneFrame, type LaneHost, payloadSize} from './apply-lane.ts';
import type {ReplicationSink} from './replication-sink.ts';
import type {StreamLogger} from './stream-logger.ts';
import type {FrameOf} from './wire.ts';

/** Memory that a frame takes besides its payload, roughly. */
const FRAME_OVERHEAD_BYTES = 200;

export interface ApplyQueueOptions {
  readonly sink: ReplicationSink;
  readonly log: StreamLogger;
  readonly signal: AbortSignal;
  readonly started: Promise<void>;
  readonly acknowledge: (id: string, position: Position) => void;
  readonly credit: (id: string, size: number) => void;
  readonly resync: (frame: FrameOf<'resync'>) => void;
  readonly fail: (error: Error) => void;
  /** The bytes that wait have grown or shrunk. */
  readonly onPendingBytes: (bytes: number) => void;
}

/** A follower's databases on one connection: a lane for each that has something to do. */
export class ApplyQueue {
  readonly #options: ApplyQueueOptions;
  readonly #lanes = new Map<string, ApplyLane>();
  readonly #host: LaneHost;
  readonly #ended: Promise<void>;
  #lastOperation: Promise<void> = Promise.resolve();
  #pendingBytes = 0;

  constructor(options: ApplyQueueOptions) {
    const {sink, log, signal, started, acknowledge, resync, fail} = options;
    this.#options = options;
    this.#ended = new Promise(resolve => signal.addEventListener('abort', () => resolve(), {once: true}));
    this.#host = {
      sink,
      log,
      signal,
      started,
      acknowledge,
      resync,
      fail,
      release: (id, frame) => this.#release(id, frame),
      onIdle: id => this.#lanes.delete(id),
    };
  }

  get isIdle(): boolean {
    for (const lane of this.#lanes.values()) if (!lane.isIdle) return false;
    return true;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  push(frame: LaneFrame): void {
    this.#pendingBytes += payloadSize(frame) + FRAME_OVERHEAD_BYTES;
    this.#lane(frame.id).push({kind: 'frame', frame});
    this.#options.onPendingBytes(this.#pendingBytes);
  }

  /**
   * Runs a change of names after all that has come for its database before, and after all earlier ones of any database,
   * since a name may pass from one to the other. A failure ends the connection: the next one settles the names anew.
   */
  operation(id: string, what: 'name' | 'drop', run: () => Promise<void>): void {
    const {signal, fail} = this.#options;
    const previous = this.#lastOperation;
    let finish: () => void = () => {};
    this.#lastOperation = new Promise(resolve => {
      finish = resolve;
    });
    const runInOrder = async () => {
      await Promise.race([previous, this.#ended]);
      try {
        if (!signal.aborted) await run();
      } catch (error) {
        if (!(error instanceof Error) || error.name === 'AssertionError') throw error;
        fail(error);
      } finally {
        finish();
      }
    };
    this.#lane(id).push({kind: what, run: runInOrder});
  }

  /** After the signal has aborted: resolves when the sink is not touched any more. */
  async close(): Promise<void> {
    await Promise.all([...this.#lanes.values()].map(lane => lane.close()));
  }

  #lane(id: string): ApplyLane {
    const known = this.#lanes.get(id);
    if (known !== undefined) return known;
    const lane = new ApplyLane(id, this.#host);
    this.#lanes.set(id, lane);
    return lane;
  }

  #release(id: string, frame: LaneFrame): void {
    const size = payloadSize(frame);
    this.#pendingBytes -= size + FRAME_OVERHEAD_BYTES;
    this.#options.onPendingBytes(this.#pendingBytes);
    if (size > 0) this.#options.credit(id, size);
  }
}
