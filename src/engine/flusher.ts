import {Worker} from 'node:worker_threads';
import type {RequestId} from '../fuse/request.ts';

/** Slots of a worker's shared memory: Int32Array. */
export const FLUSH_STATE = 0;
export const FLUSH_FD = 1;
export const FLUSH_DATA_ONLY = 2;
export const FLUSH_HAS_REPLY = 3;
export const FLUSH_ID_LOW = 4;
export const FLUSH_ID_HIGH = 5;
export const FLUSH_ERRNO = 6;
export const FLUSH_WAKES = 7;
const SLOT_COUNT = 8;

/** Values of FLUSH_STATE. */
export const FLUSH_IDLE = 0;
export const FLUSH_WORKING = 1;
export const FLUSH_DONE = 2;

export interface FlushWorkerData {
  readonly shared: SharedArrayBuffer;
  readonly fuseFd: number;
  readonly wakeFd: number;
}

export interface FlushJob {
  readonly fd: number;
  readonly isDataOnly: boolean;
  /** The FSYNC to answer when the disk has the bytes; without it only `done` is called. */
  readonly id?: RequestId;
  /** Nobody waits for it: one such job runs at a time, when no other waits. */
  readonly isBackground?: boolean;
  /** Called on the caller's thread afterwards, `errno` positive or 0. */
  readonly done: (errno: number) => void;
}

export interface FlusherOptions {
  readonly fuseFd: number;
  readonly wakeFd: number;
  /** Threads at the start, and the most there may be: a flush of gigabytes must not hold up those of other files. */
  readonly threadCount: number;
  readonly threadCountMax: number;
}

interface FlushWorker {
  readonly thread: Worker;
  readonly slots: Int32Array;
  job: FlushJob | undefined;
}

/**
 * Flushes files on threads of their own, so that a slow disk stalls nobody but who asked. A thread answers the
 * FSYNC itself; the fs thread learns of it when it comes by, or is woken where something waits for it.
 */
export class Flusher {
  readonly #workers: FlushWorker[] = [];
  readonly #waiting: FlushJob[] = []; // Bounded by the threads of the apps: each waits for its own flush.
  readonly #background = new Set<FlushJob>(); // Bounded by the databases in use.
  readonly #options: FlusherOptions;

  constructor(options: FlusherOptions) {
    this.#options = options;
    for (let i = 0; i < options.threadCount; i++) this.#addWorker();
  }

  flush(job: FlushJob): void {
    if (job.isBackground === true && this.#isBackgroundBusy) this.#background.add(job);
    else this.#flushNow(job);
  }

  /** Somebody waits for this job now. Nothing happens when it runs or is done already. */
  hurry(job: FlushJob): void {
    if (this.#background.delete(job)) this.#flushNow(job);
  }

  get #isBackgroundBusy(): boolean {
    return this.#waiting.length > 0 || this.#workers.some(({job}) => job?.isBackground === true);
  }

  #flushNow(job: FlushJob): void {
    const idle = this.#workers.find(worker => worker.job === undefined) ?? this.#reap() ?? this.#grow();
    if (idle === undefined) this.#wait(job);
    else start(idle, job, job.id === undefined);
  }

  #grow(): FlushWorker | undefined {
    return this.#workers.length < this.#options.threadCountMax ? this.#addWorker() : undefined;
  }

  #addWorker(): FlushWorker {
    const {fuseFd, wakeFd} = this.#options;
    const shared = new SharedArrayBuffer(SLOT_COUNT * 4);
    const workerData: FlushWorkerData = {shared, fuseFd, wakeFd};
    const thread = new Worker(new URL('./flusher-worker.js', import.meta.url), {workerData});
    thread.unref();
    const worker = {thread, slots: new Int32Array(shared), job: undefined};
    this.#workers.push(worker);
    return worker;
  }

  /** Finishes what the threads have done and hands them what waits. Called once per turn of the loop. */
  poll(): void {
    for (const worker of this.#workers) {
      if (worker.job === undefined || !finish(worker)) continue;
      const next = this.#next();
      if (next !== undefined) start(worker, next, next.id === undefined || this.#waiting.length > 0);
    }
  }

  #next(): FlushJob | undefined {
    if (this.#waiting.length > 0 || this.#isBackgroundBusy) return this.#waiting.shift();
    const [job] = this.#background;
    if (job !== undefined) this.#background.delete(job);
    return job;
  }

  #reap(): FlushWorker | undefined {
    return this.#waiting.length > 0
      ? undefined
      : this.#workers.find(worker => worker.job !== undefined && finish(worker));
  }

  #wait(job: FlushJob): void {
    this.#waiting.push(job);
    for (const {slots} of this.#workers) Atomics.store(slots, FLUSH_WAKES, 1);
  }
}

function start(worker: FlushWorker, job: FlushJob, wakes: boolean): void {
  const {slots} = worker;
  worker.job = job;
  slots[FLUSH_FD] = job.fd;
  slots[FLUSH_DATA_ONLY] = job.isDataOnly ? 1 : 0;
  slots[FLUSH_HAS_REPLY] = job.id === undefined ? 0 : 1;
  slots[FLUSH_ID_LOW] = (job.id?.low ?? 0) | 0;
  slots[FLUSH_ID_HIGH] = (job.id?.high ?? 0) | 0;
  Atomics.store(slots, FLUSH_WAKES, wakes ? 1 : 0);
  Atomics.store(slots, FLUSH_STATE, FLUSH_WORKING);
  Atomics.notify(slots, FLUSH_STATE);
}

function finish(worker: FlushWorker): boolean {
  const {slots, job} = worker;
  if (job === undefined || Atomics.load(slots, FLUSH_STATE) !== FLUSH_DONE) return false;
  worker.job = undefined;
  Atomics.store(slots, FLUSH_STATE, FLUSH_IDLE);
  job.done(slots[FLUSH_ERRNO]);
  return true;
}
