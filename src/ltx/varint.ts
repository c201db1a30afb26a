import {assert} from '../lib/assert.ts';

/** Bytes that the largest number written by `putUvarint` takes: 53 bits, 7 in each byte. */
export const UVARINT_SIZE_MAX = 8;

/** Writes `value` as an unsigned LEB128 at `at` in `target`. Returns the offset after it. */
export function putUvarint(target: Uint8Array, at: number, value: number): number {
  assert(Number.isSafeInteger(value) && value >= 0, 'a varint is a whole number of at most 53 bits');
  let offset = at;
  let rest = value;
  while (rest >= 0x80) {
    target[offset++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  target[offset++] = rest;
  return offset;
}
