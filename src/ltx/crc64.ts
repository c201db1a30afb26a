import {createCRC64, type IHasher} from 'hash-wasm';
import {assert} from '../lib/assert.ts';
import {Crc64Shift, makeCrc64Table} from './crc64-table.ts';

/** Reversed form of x^64 + x^4 + x^3 + x + 1, the generator of CRC-64/GO-ISO. */
const POLYNOMIAL = 'd800000000000000';

/** Below this a table in JavaScript is faster than a call into WebAssembly. */
const WASM_SIZE_MIN = 128;

/** The hasher's own buffer; a larger update would only be split there. */
const WASM_SIZE_MAX = 16 * 1024;

/**
 * The WebAssembly part of CRC-64/GO-ISO, which needs an asynchronous start: open one per thread, then
 * everything is synchronous. It holds no state between calls, so any number of `Crc64` may share it.
 */
export class Crc64Factory {
  readonly table = makeCrc64Table();
  readonly #hasher: IHasher;
  readonly #shifts = new Map<number, Crc64Shift>();
  readonly #scratch = new Uint8Array(WASM_SIZE_MAX);
  /** A view of `#scratch` as long as the last block, kept because blocks have the same size over and over. */
  #block = this.#scratch.subarray(0, 4096);

  private constructor(hasher: IHasher) {
    this.#hasher = hasher;
  }

  static async open(): Promise<Crc64Factory> {
    return new Crc64Factory(await createCRC64(POLYNOMIAL));
  }

  /** A new checksum over no bytes. */
  create(): Crc64 {
    return new Crc64(this);
  }

  /** The shift by `size` bytes, made at its first use and kept: ask for page sizes only. */
  shift(size: number): Crc64Shift {
    let shift = this.#shifts.get(size);
    if (shift === undefined) {
      shift = new Crc64Shift(this.table, size);
      this.#shifts.set(size, shift);
    }
    return shift;
  }

  /**
   * Returns the eight bytes, big-endian, of the CRC that goes on from (`high`, `low`) with
   * `bytes[from, to)`, between `WASM_SIZE_MIN` and `WASM_SIZE_MAX` of them. The hasher always starts anew: going on
   * from a register is the same as XORing the register into the next eight bytes.
   */
  continueBlock(high: number, low: number, bytes: Uint8Array): Uint8Array {
    assert(
      bytes.length >= 8 && bytes.length <= WASM_SIZE_MAX,
      'a block holds a register and fits the scratch',
    );
    if (this.#block.length !== bytes.length) this.#block = this.#scratch.subarray(0, bytes.length);
    const block = this.#block;
    block.set(bytes);
    for (let i = 0; i < 4; i++) {
      block[i] ^= low >>> (8 * i);
      block[i + 4] ^= high >>> (8 * i);
    }
    return this.#hasher.init().update(block).digest('binary');
  }
}

/** A CRC-64/GO-ISO over a stream of bytes. Many may be alive and interleaved. */
export class Crc64 {
  readonly #factory: Crc64Factory;
  readonly #table: Int32Array;
  // The finished value over the bytes so far, that is, the register inverted, as two 32-bit halves of any sign.
  #high = 0;
  #low = 0;

  constructor(factory: Crc64Factory) {
    this.#factory = factory;
    this.#table = factory.table;
  }

  /** Starts anew, over no bytes. */
  reset(): void {
    this.#high = 0;
    this.#low = 0;
  }

  update(bytes: Uint8Array): void {
    if (bytes.length <= WASM_SIZE_MAX) this.#updatePart(bytes);
    else {
      for (let at = 0; at < bytes.length; at += WASM_SIZE_MAX) {
        this.#updatePart(bytes.subarray(at, at + WASM_SIZE_MAX));
      }
    }
  }

  /**
   * Goes on as if by `update` with the bytes that `part` is the CRC of, `shift.size` of them. Together with an
   * update of `part` this hashes bytes once for several streams.
   */
  append(part: Crc64, shift: Crc64Shift): void {
    const high = shift.high(this.#high, this.#low) ^ part.#high;
    this.#low = shift.low(this.#high, this.#low) ^ part.#low;
    this.#high = high;
  }

  /** The CRC of the bytes so far, unsigned, without the checksum flag. More updates may follow. */
  digest(): bigint {
    return (BigInt(this.#high >>> 0) << 32n) | BigInt(this.#low >>> 0);
  }

  #updatePart(bytes: Uint8Array): void {
    if (bytes.length < WASM_SIZE_MIN) this.#updateShort(bytes);
    else this.#updateBlock(bytes);
  }

  #updateBlock(bytes: Uint8Array): void {
    const crc = this.#factory.continueBlock(this.#high, this.#low, bytes);
    this.#high = (crc[0] << 24) | (crc[1] << 16) | (crc[2] << 8) | crc[3];
    this.#low = (crc[4] << 24) | (crc[5] << 16) | (crc[6] << 8) | crc[7];
  }

  #updateShort(bytes: Uint8Array): void {
    let high = ~this.#high;
    let low = ~this.#low;
    const table = this.#table;
    for (let i = 0; i < bytes.length; i++) {
      const entry = table[(low ^ bytes[i]) & 0xff];
      low = (low >>> 8) | (high << 24);
      high = (high >>> 8) ^ entry;
    }
    this.#high = ~high;
    this.#low = ~low;
  }
}
