import {assert} from './assert.ts';

export type BytesErrorCode = 'BYTES_TRUNCATED' | 'BYTES_OVERSIZE' | 'BYTES_BAD_UTF8';

/**
 * Bytes from the world that can't be read, or that don't fit where they should be written.
 *
 * - `BYTES_TRUNCATED`: fewer bytes remain than the field needs.
 * - `BYTES_OVERSIZE`: an integer above 2^53-1 where a count was expected, or no room left in the writer.
 * - `BYTES_BAD_UTF8`: text that isn't UTF-8.
 */
export class BytesError extends Error {
  override readonly name = 'BytesError';
  readonly code: BytesErrorCode;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(code: BytesErrorCode, message: string, detail: Readonly<Record<string, unknown>> = {}) {
    super(message);
    this.code = code;
    this.detail = detail;
  }
}

/**
 * Reads fields one after the other from a buffer that it does not own. Every read is checked against what
 * remains and throws `BYTES_TRUNCATED` without moving when there is too little.
 */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #position: number;

  constructor(bytes: Uint8Array, position = 0) {
    assert(position >= 0 && position <= bytes.length, 'a reader starts inside its buffer');
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#position = position;
  }

  /** Offset of the next field from the start of the buffer, in bytes. */
  get position(): number {
    return this.#position;
  }

  /** Bytes left. */
  get remaining(): number {
    return this.#bytes.length - this.#position;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16be(): number {
    return this.#view.getUint16(this.#take(2));
  }

  u32be(): number {
    return this.#view.getUint32(this.#take(4));
  }

  u32le(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64be(): bigint {
    return this.#view.getBigUint64(this.#take(8));
  }

  u64le(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  /** A 64-bit integer that counts something. Throws `BYTES_OVERSIZE` above 2^53-1. */
  u64beNumber(): number {
    return this.#safe(this.#view.getUint32(this.#need(8)), this.#view.getUint32(this.#position + 4));
  }

  /** As `u64beNumber`, with the least significant byte first. */
  u64leNumber(): number {
    return this.#safe(
      this.#view.getUint32(this.#need(8) + 4, true),
      this.#view.getUint32(this.#position, true),
    );
  }

  /** The next `size` bytes as a view into the reader's buffer: copy it to keep it longer than that. */
  bytes(size: number): Uint8Array {
    const start = this.#take(size);
    return this.#bytes.subarray(start, start + size);
  }

  /** The next `size` bytes as text. Throws `BYTES_BAD_UTF8`; a byte order mark is kept as it is. */
  utf8(size: number): string {
    const start = this.#need(size);
    try {
      const text = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(
        this.#bytes.subarray(start, start + size),
      );
      this.#position += size;
      return text;
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw new BytesError('BYTES_BAD_UTF8', `Cannot read text: ${size} bytes at ${start} are not UTF-8`, {
        position: start,
        size,
      });
    }
  }

  /** Passes over `size` bytes. */
  skip(size: number): void {
    this.#take(size);
  }

  /** Throws `BYTES_OVERSIZE` when bytes are left: for messages that must end here. */
  expectEnd(): void {
    if (this.remaining === 0) return;
    throw new BytesError('BYTES_OVERSIZE', `Cannot read message: ${this.remaining} bytes too many`, {
      position: this.#position,
      remaining: this.remaining,
    });
  }

  #take(size: number): number {
    const start = this.#need(size);
    this.#position += size;
    return start;
  }

  #need(size: number): number {
    assert(Number.isSafeInteger(size) && size >= 0, 'a field has a size');
    if (size > this.remaining) {
      throw new BytesError('BYTES_TRUNCATED', `Cannot read ${size} bytes: ${this.remaining} remain`, {
        position: this.#position,
        remaining: this.remaining,
        size,
      });
    }
    return this.#position;
  }

  #safe(high: number, low: number): number {
    const value = high * 2 ** 32 + low;
    if (!Number.isSafeInteger(value)) {
      throw new BytesError('BYTES_OVERSIZE', `Cannot read count: more than ${Number.MAX_SAFE_INTEGER}`, {
        high,
        low,
      });
    }
    this.#position += 8;
    return value;
  }
}

/**
 * Writes fields one after the other into a buffer that it does not own and does not grow. Throws
 * `BYTES_OVERSIZE` without writing when a field does not fit; values out of a field's range are our bug.
 */
export class ByteWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #position: number;

  constructor(bytes: Uint8Array, position = 0) {
    assert(position >= 0 && position <= bytes.length, 'a writer starts inside its buffer');
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#position = position;
  }

  /** Offset of the next field from the start of the buffer, in bytes. */
  get position(): number {
    return this.#position;
  }

  /** Bytes of room left. */
  get remaining(): number {
    return this.#bytes.length - this.#position;
  }

  /** What is written so far, from the start of the buffer, as a view. */
  written(): Uint8Array {
    return this.#bytes.subarray(0, this.#position);
  }

  u8(value: number): this {
    checkUnsigned(value, 0xff);
    this.#view.setUint8(this.#take(1), value);
    return this;
  }

  u16be(value: number): this {
    checkUnsigned(value, 0xffff);
    this.#view.setUint16(this.#take(2), value);
    return this;
  }

  u32be(value: number): this {
    checkUnsigned(value, 0xffff_ffff);
    this.#view.setUint32(this.#take(4), value);
    return this;
  }

  u32le(value: number): this {
    checkUnsigned(value, 0xffff_ffff);
    this.#view.setUint32(this.#take(4), value, true);
    return this;
  }

  u64be(value: bigint): this {
    checkUnsigned64(value);
    this.#view.setBigUint64(this.#take(8), value);
    return this;
  }

  u64le(value: bigint): this {
    checkUnsigned64(value);
    this.#view.setBigUint64(this.#take(8), value, true);
    return this;
  }

  /** A count up to 2^53-1, in 64 bits. */
  u64beNumber(value: number): this {
    checkUnsigned(value, Number.MAX_SAFE_INTEGER);
    const at = this.#take(8);
    this.#view.setUint32(at, Math.floor(value / 2 ** 32));
    this.#view.setUint32(at + 4, value >>> 0);
    return this;
  }

  bytes(bytes: Uint8Array): this {
    this.#bytes.set(bytes, this.#take(bytes.length));
    return this;
  }

  /** The text's UTF-8 bytes without a length: write `utf8Size(text)` in front of it where one is needed. */
  utf8(text: string): this {
    return this.bytes(new TextEncoder().encode(text));
  }

  /** `size` zero bytes. */
  zeros(size: number): this {
    const at = this.#take(size);
    this.#bytes.fill(0, at, at + size);
    return this;
  }

  #take(size: number): number {
    assert(Number.isSafeInteger(size) && size >= 0, 'a field has a size');
    if (size > this.remaining) {
      throw new BytesError('BYTES_OVERSIZE', `Cannot write ${size} bytes: room for ${this.remaining}`, {
        position: this.#position,
        remaining: this.remaining,
        size,
      });
    }
    const at = this.#position;
    this.#position += size;
    return at;
  }
}

/** Bytes that `text` takes in UTF-8. */
export function utf8Size(text: string): number {
  return Buffer.byteLength(text, 'utf8');
}

/** The big-endian u32 at `at`. The caller has checked the bounds; `ByteReader` is for what nobody checked. */
export function readU32be(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

/** Puts `value` at `at`, most significant byte first. The caller has checked the bounds. */
export function writeU32be(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function checkUnsigned(value: number, max: number): void {
  assert(
    Number.isSafeInteger(value) && value >= 0 && value <= max,
    `${value} is an integer from 0 to ${max}`,
  );
}

function checkUnsigned64(value: bigint): void {
  assert(value >= 0n && value <= 0xffff_ffff_ffff_ffffn, `${value} is an unsigned integer of 64 bits`);
}
