import {assert} from '../lib/assert.ts';

/**
 * Upper halves of CRC-64/GO-ISO's table by bytes. The lower halves are all zero: between x^4 and x^64 the generator
 * has no terms, so one byte never reaches below bit 48.
 */
export function makeCrc64Table(): Int32Array {
  const table = new Int32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let low = byte;
    let high = 0;
    for (let bit = 0; bit < 8; bit++) {
      const isOdd = (low & 1) === 1;
      low = (low >>> 1) | (high << 31);
      high >>>= 1;
      if (isOdd) high ^= 0xd8000000;
    }
    assert(low === 0, 'the lower half of a table entry is zero');
    table[byte] = high;
  }
  return table;
}

/**
 * What `size` zero bytes do to a CRC's register without its inversions, as tables: a linear map, so that the CRC of
 * two parts is the first part's, shifted by the second part's size, XORed with the second part's.
 */
export class Crc64Shift {
  readonly size: number;
  /** For each of the register's bytes (lowest first) and each value of it, the half of what it becomes. */
  readonly #high = new Int32Array(8 * 256);
  readonly #low = new Int32Array(8 * 256);

  /** Takes time in proportion to `size` (about 10 ms for 64 KiB): make one per size and keep it. */
  constructor(table: Int32Array, size: number) {
    this.size = size;
    for (let bit = 0; bit < 64; bit++) this.#setBit(table, bit);
    for (let at = 0; at < 8 * 256; at++) {
      const lowest = at & -at & 0xff;
      const rest = (at & 0xff) ^ lowest;
      if (rest === 0) continue;
      const base = at & ~0xff;
      this.#high[at] = this.#high[base | lowest] ^ this.#high[base | rest];
      this.#low[at] = this.#low[base | lowest] ^ this.#low[base | rest];
    }
  }

  /** The upper half of the shifted (`high`, `low`). */
  high(high: number, low: number): number {
    return look(this.#high, high, low);
  }

  /** The lower half of the shifted (`high`, `low`). */
  low(high: number, low: number): number {
    return look(this.#low, high, low);
  }

  #setBit(table: Int32Array, bit: number): void {
    let low = bit < 32 ? 1 << bit : 0;
    let high = bit < 32 ? 0 : 1 << (bit - 32);
    for (let i = 0; i < this.size; i++) {
      const entry = table[low & 0xff];
      low = (low >>> 8) | (high << 24);
      high = (high >>> 8) ^ entry;
    }
    const at = (bit >> 3) * 256 + (1 << (bit & 7));
    this.#high[at] = high;
    this.#low[at] = low;
  }
}

function look(half: Int32Array, high: number, low: number): number {
  return (
    half[low & 0xff] ^
    half[0x100 | ((low >>> 8) & 0xff)] ^
    half[0x200 | ((low >>> 16) & 0xff)] ^
    half[0x300 | (low >>> 24)] ^
    half[0x400 | (high & 0xff)] ^
    half[0x500 | ((high >>> 8) & 0xff)] ^
    half[0x600 | ((high >>> 16) & 0xff)] ^
    half[0x700 | (high >>> 24)]
  );
}
