import {readSync} from 'node:fs';
import type {Poller} from '../lib/libc.ts';
import type {FuseRequest} from './request.ts';

export interface SessionHandler {
  /** Serves one request: answers it now, or keeps its ID and answers later. */
  handle(request: FuseRequest): void;
  /** Takes the messages that woke the loop. Returns false to end it. */
  drainMessages(): boolean;
  /** Does background work for about a millisecond. Returns whether there is more. */
  work(): boolean;
  /** Called at least once a second: the loop is alive. */
  heartbeat(): void;
}

export interface SessionOptions {
  readonly fuseFd: number;
  /** Over the connection's descriptor (bit 0) and the wake-up eventfd (bit 1). */
  readonly poller: Poller;
  readonly request: FuseRequest;
  readonly handler: SessionHandler;
  /** How long to look for the next request before sleeping: on idle virtual CPUs waking up costs more than a request. */
  readonly spinNs: number;
}

const FUSE_READY = 1;
const WAKE_READY = 2;
const HEARTBEAT_MS = 500;
/** Requests served before background work gets its turn. */
const REQUESTS_PER_TURN = 32;

/** Serves the connection. Synchronous: it owns its thread, and gives it back now and then. */
export class FuseSession {
  readonly #options: SessionOptions;
  #hasWork = false;
  #spinUntil = 0;
  #heartbeatAt = 0;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /**
   * Serves until the connection is unmounted, a message ends it, or `durationMs` are over: then the thread's event loop must
   * have a turn before the next call, or nothing that native code has handed out is ever freed.
   */
  run(durationMs: number): 'unmounted' | 'stopped' | 'paused' {
    const {fuseFd, poller, request, handler, spinNs} = this.#options;
    const end = performance.now() + durationMs;
    for (;;) {
      const now = performance.now();
      if (now >= end) return 'paused';
      if (now >= this.#heartbeatAt) {
        handler.heartbeat();
        this.#heartbeatAt = now + HEARTBEAT_MS;
      }
      const ready = poller.wait(this.#hasWork || now < this.#spinUntil ? 0 : HEARTBEAT_MS);
      if ((ready & WAKE_READY) !== 0 && !handler.drainMessages()) return 'stopped';
      if ((ready & FUSE_READY) !== 0) {
        // Without other work the loop's own poll finds the next request.
        const countMax = this.#hasWork ? REQUESTS_PER_TURN : 1;
        if (!serveWaiting(fuseFd, poller, request, handler, countMax)) return 'unmounted';
        this.#spinUntil = performance.now() + spinNs / 1e6;
      }
      this.#hasWork = handler.work();
    }
  }
}

/** Serves what is waiting, up to `countMax` requests. Returns false when the connection has ended. */
function serveWaiting(
  fuseFd: number,
  poller: Poller,
  request: FuseRequest,
  handler: SessionHandler,
  countMax: number,
): boolean {
  for (let served = 1; ; served++) {
    try {
      request.length = readSync(fuseFd, request.buffer);
    } catch (error) {
      const {code} = error as NodeJS.ErrnoException;
      if (code === 'ENODEV' || code === 'ECONNABORTED') return false;
      // ENOENT: given up before we read it. EAGAIN: another process that holds the descriptor took it.
      if (code === 'ENOENT' || code === 'EAGAIN' || code === 'EINTR') return true;
      throw error;
    }
    if (request.length === 0) return false;
    handler.handle(request);
    if (served >= countMax || (poller.wait(0) & FUSE_READY) === 0) return true;
  }
}
