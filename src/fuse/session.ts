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

/** Serves the connection until it is unmounted or a message ends it. Returns which. Synchronous: it owns its thread. */
export function runSession({
  fuseFd,
  poller,
  request,
  handler,
  spinNs,
}: SessionOptions): 'unmounted' | 'stopped' {
  let hasWork = false;
  let spinUntil = 0;
  let heartbeatAt = 0;
  for (;;) {
    const now = performance.now();
    if (now >= heartbeatAt) {
      handler.heartbeat();
      heartbeatAt = now + HEARTBEAT_MS;
    }
    const ready = poller.wait(hasWork || now < spinUntil ? 0 : HEARTBEAT_MS);
    if ((ready & WAKE_READY) !== 0 && !handler.drainMessages()) return 'stopped';
    if ((ready & FUSE_READY) !== 0) {
      // Without other work the loop's own poll finds the next request.
      const countMax = hasWork ? REQUESTS_PER_TURN : 1;
      if (!serveWaiting(fuseFd, poller, request, handler, countMax)) return 'unmounted';
      spinUntil = performance.now() + spinNs / 1e6;
    }
    hasWork = handler.work();
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
