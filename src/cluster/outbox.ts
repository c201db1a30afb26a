import type {WebSocket} from 'ws';
import {type Turn, TurnQueue} from './scheduler.ts';
import type {StreamLimits} from './stream-limits.ts';
import {encodeFrame, type Frame} from './wire.ts';

/**
 * The primary's way out to one follower, in three classes: control frames (names, drops, rewinds) in order and before
 * anything else; live commits, at once or not at all; frames of transfers by turns. Only control frames are queued,
 * up to `controlBytesMax`.
 */
export class Outbox {
  readonly #ws: WebSocket;
  readonly #limits: StreamLimits;
  readonly #onOverflow: () => void;
  readonly #turns = new TurnQueue();
  #control: Uint8Array[] = [];
  #controlSent = 0;
  #controlBytes = 0;
  #isPumping = false;

  constructor(options: {ws: WebSocket; limits: StreamLimits; onOverflow: () => void}) {
    this.#ws = options.ws;
    this.#limits = options.limits;
    this.#onOverflow = options.onOverflow;
  }

  /** No control frame waits, so that what is sent now does not overtake one. */
  get isClear(): boolean {
    return this.#controlBytes === 0;
  }

  /** Unsent bytes: the socket's and ours. */
  get bufferedBytes(): number {
    return this.#ws.bufferedAmount + this.#controlBytes;
  }

  control(frame: Frame): void {
    const bytes = encodeFrame(frame);
    this.#control.push(bytes);
    this.#controlBytes += bytes.length;
    this.pump();
    if (this.#controlBytes > this.#limits.controlBytesMax) this.#onOverflow();
  }

  /** Sends an encoded frame now, or returns false. */
  offer(bytes: Uint8Array): boolean {
    if (!this.isClear || this.#ws.bufferedAmount >= this.#limits.socketBytesMax) return false;
    this.#send(bytes);
    return true;
  }

  /** Sends an encoded frame of a transfer from within its `Turn.send`. */
  push(bytes: Uint8Array): void {
    this.#send(bytes);
  }

  /** Waits for the frame's turn, and for the socket to have drained enough. */
  async turn(turn: Turn, signal: AbortSignal): Promise<void> {
    const sent = this.#turns.wait(turn, signal);
    this.pump();
    await sent;
  }

  /** Sends what may be sent. To be called whenever a window has opened. */
  pump(): void {
    if (this.#isPumping || this.#ws.readyState !== this.#ws.OPEN) return;
    this.#isPumping = true;
    try {
      this.#pumpControl();
      while (this.isClear && this.#ws.bufferedAmount < this.#limits.bulkSocketBytesMax) {
        if (!this.#turns.grant()) break;
      }
    } finally {
      this.#isPumping = false;
    }
  }

  #pumpControl(): void {
    while (this.#controlSent < this.#control.length) {
      if (this.#ws.bufferedAmount >= this.#limits.socketBytesMax) return;
      const bytes = this.#control[this.#controlSent++];
      this.#controlBytes -= bytes.length;
      this.#send(bytes);
    }
    this.#control = [];
    this.#controlSent = 0;
  }

  #send(bytes: Uint8Array): void {
    this.#ws.send(bytes, {binary: true}, this.#onFlushed);
  }

  // The error, if any, comes by the socket's `close` as well.
  readonly #onFlushed = (): void => this.pump();
}
