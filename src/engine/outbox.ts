import type {MessagePort} from 'node:worker_threads';
import type {FsEvent} from './messages.ts';

/** From one batch to the next. The first event after a pause goes at once. */
const INTERVAL_MS = 0.5;
const COUNT_MAX = 64;
/** Batches that main has not taken yet, above which no records go along. */
const BACKLOG_MAX = 64;

/** Events on their way to main, a few at a time: waking it for each commit would cost as much as the commit. */
export class Outbox {
  readonly #port: MessagePort;
  /** How many batches main has taken. */
  readonly #taken: Int32Array;
  #posted = 0;
  #events: FsEvent[] = [];
  #sentMs = 0;

  constructor(port: MessagePort, taken: SharedArrayBuffer) {
    this.#port = port;
    this.#taken = new Int32Array(taken);
  }

  /** Main does not keep up: what can be read from the log later should not be sent. */
  get isBacklogged(): boolean {
    return ((this.#posted - Atomics.load(this.#taken, 0)) | 0) > BACKLOG_MAX;
  }

  get isEmpty(): boolean {
    return this.#events.length === 0;
  }

  add(event: FsEvent): void {
    this.#events.push(event);
    if (this.#events.length >= COUNT_MAX) this.flush();
  }

  /** Sends what is due. */
  poll(): void {
    if (this.#events.length > 0 && performance.now() - this.#sentMs >= INTERVAL_MS) this.flush();
  }

  flush(): void {
    if (this.#events.length === 0) return;
    this.#port.postMessage(this.#events);
    this.#posted = (this.#posted + 1) | 0;
    this.#events = [];
    this.#sentMs = performance.now();
  }
}
