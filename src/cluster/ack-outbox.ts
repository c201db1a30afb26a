import type {WebSocket} from 'ws';
import type {Position} from '../ltx/position.ts';
import {encodeFrame, inPages} from './wire.ts';

/** Unsent bytes above which acknowledgements wait for the next heartbeat. They are joined meanwhile. */
const SOCKET_BYTES_MAX = 1024 * 1024;

/** Gathers a follower's acknowledgements and credits over one turn of the event loop. One of each per database at most. */
export class AckOutbox {
  readonly #ws: WebSocket;
  readonly #acks = new Map<string, Position>();
  readonly #credits = new Map<string, number>();
  #timer: NodeJS.Immediate | undefined;

  constructor(ws: WebSocket) {
    this.#ws = ws;
  }

  acknowledge(id: string, position: Position): void {
    this.#acks.set(id, position);
    this.#schedule();
  }

  credit(id: string, size: number): void {
    this.#credits.set(id, (this.#credits.get(id) ?? 0) + size);
    this.#schedule();
  }

  /** Sends what was gathered, unless the primary does not read; then it is kept for the next call. */
  flush(isForced = false): void {
    clearImmediate(this.#timer);
    this.#timer = undefined;
    if (this.#ws.readyState !== this.#ws.OPEN) return;
    if (!isForced && this.#ws.bufferedAmount > SOCKET_BYTES_MAX) return;
    if (this.#acks.size > 0) {
      const entries = [...this.#acks].map(([id, position]) => ({id, position}));
      for (const page of inPages(entries)) this.#ws.send(encodeFrame({type: 'ack', entries: page}));
      this.#acks.clear();
    }
    if (this.#credits.size > 0) {
      const entries = [...this.#credits].map(([id, size]) => ({id, size}));
      for (const page of inPages(entries)) this.#ws.send(encodeFrame({type: 'credit', entries: page}));
      this.#credits.clear();
    }
  }

  close(): void {
    clearImmediate(this.#timer);
    this.#timer = undefined;
  }

  #schedule(): void {
    this.#timer ??= setImmediate(() => this.flush());
  }
}
