import {assert} from '../lib/assert.ts';
import {LtxError} from './error.ts';

/** Bytes at positions, from memory or a file. */
export interface ByteSource {
  readonly size: number;
  /** Fills `target` from `position` on as far as there are bytes. Returns how many; 0 at the end. */
  read(position: number, target: Uint8Array): number;
  /** All the bytes, where they are in memory anyway: saves readers from copying them. */
  readonly bytes?: Uint8Array;
}

/** A source over `bytes`, which must not change while it is read. */
export function bytesSource(bytes: Uint8Array): ByteSource {
  return {
    size: bytes.length,
    bytes,
    read(position, target) {
      const part = bytes.subarray(position, position + target.length);
      target.set(part);
      return part.length;
    },
  };
}

/**
 * Reads a source forwards through a window. `bytes[at]` is the next byte; what is there is certain only after
 * `need`, and valid until the next `need`.
 */
export class RecordReader {
  bytes: Uint8Array;
  at: number;
  readonly #source: ByteSource;
  readonly #start: number;
  /** Position in the source of the window's first byte. */
  #windowStart: number;
  /** How many bytes of the window are filled. */
  #filled: number;

  /** Reads from `start` on, normally `windowSize` bytes at once. */
  constructor(source: ByteSource, start: number, windowSize: number) {
    this.#source = source;
    this.#start = start;
    if (source.bytes !== undefined) {
      this.bytes = source.bytes;
      this.at = start;
      this.#windowStart = 0;
      this.#filled = source.bytes.length;
      return;
    }
    this.bytes = new Uint8Array(Math.max(0, Math.min(windowSize, source.size - start)));
    this.at = 0;
    this.#windowStart = start;
    this.#filled = 0;
  }

  /** Bytes from the start to the next byte. */
  get offset(): number {
    return this.#windowStart + this.at - this.#start;
  }

  /** Makes sure that the next `size` bytes are in the window. Throws `LTX_TRUNCATED` where the source ends before. */
  need(size: number): void {
    if (this.at + size <= this.#filled) return;
    const position = this.#windowStart + this.at;
    if (position + size > this.#source.size) this.#failTruncated(size);
    assert(this.#source.bytes === undefined, 'a source in memory holds all its bytes');
    const keep = Math.max(0, this.#filled - this.at);
    const window = size > this.bytes.length ? new Uint8Array(size) : this.bytes;
    if (keep > 0) window.set(this.bytes.subarray(this.at, this.#filled));
    this.bytes = window;
    this.at = 0;
    this.#windowStart = position;
    this.#filled = keep;
    // Each round makes the window fuller or throws.
    while (this.#filled < size) {
      const count = this.#source.read(position + this.#filled, window.subarray(this.#filled));
      if (count <= 0) this.#failTruncated(size);
      this.#filled += count;
    }
  }

  /** Passes over `size` bytes, which need not be in the window. Throws `LTX_TRUNCATED`. */
  skip(size: number): void {
    if (this.#windowStart + this.at + size > this.#source.size) this.#failTruncated(size);
    this.at += size;
  }

  #failTruncated(size: number): never {
    throw new LtxError('LTX_TRUNCATED', `Cannot read ${size} bytes of an LTX record: it ends before`, {
      offset: this.offset,
      size,
      sourceSize: this.#source.size,
    });
  }
}
