import {assert} from '../lib/assert.ts';
import {LtxError} from './error.ts';

// An LZ4 block is a list of sequences: a token (upper half: number of literals, lower half: match length - 4; 15
// means that more length bytes follow, of which the first below 255 is the last), the literals, then the match's
// distance (u16, little-endian) and its further length bytes. The last sequence ends after its literals.
const LENGTH_MORE = 15;
const MATCH_SIZE_MIN = 4;
/** From here on the engine's own copying is faster than a loop. */
const COPY_SIZE_MIN = 24;

/** The most bytes that a block of `size` bytes takes, however badly it compresses. */
export function lz4Bound(size: number): number {
  return size + Math.floor(size / 255) + 16;
}

/** Size in bytes of what `putLiteralsHead` writes for `size` literals, at least 15. */
export function literalsHeadSize(size: number): number {
  assert(size >= LENGTH_MORE, 'the number of literals needs length bytes');
  return 2 + Math.floor((size - LENGTH_MORE) / 255);
}

/** Writes the start of a block that consists of `size` literals, which follow as they are. Returns the offset after it. */
export function putLiteralsHead(target: Uint8Array, at: number, size: number): number {
  assert(size >= LENGTH_MORE, 'the number of literals needs length bytes');
  let offset = at;
  target[offset++] = LENGTH_MORE << 4;
  let rest = size - LENGTH_MORE;
  for (; rest >= 255; rest -= 255) target[offset++] = 255;
  target[offset++] = rest;
  return offset;
}

/** Whether the block `source[from, to)` is just `size` literals (its last `size` bytes) under the head written above. */
export function isLiteralsBlock(source: Uint8Array, from: number, to: number, size: number): boolean {
  const last = to - size - 1;
  if (last - from + 1 !== literalsHeadSize(size) || source[from] !== LENGTH_MORE << 4) return false;
  for (let at = from + 1; at < last; at++) {
    if (source[at] !== 255) return false;
  }
  return source[last] === (size - LENGTH_MORE) % 255;
}

/** Decompresses the block `source[from, to)`, which must fill `target` exactly. Throws `LTX_BAD_PAYLOAD`. */
export function decodeLz4Block(source: Uint8Array, from: number, to: number, target: Uint8Array): void {
  let input = from;
  let output = 0;
  for (;;) {
    if (input >= to) fail('a sequence is cut off');
    const token = source[input++];
    let count = token >>> 4;
    if (count === LENGTH_MORE) {
      const size = lengthBytes(source, input, to);
      input += size;
      count = longLength(source, input, size);
    }
    if (count > to - input) fail('literals are cut off');
    if (count > target.length - output) fail('it is longer than a page');
    copyLiterals(source, input, target, output, count);
    input += count;
    output += count;
    if (input === to) break;

    if (input + 2 > to) fail('a match is cut off');
    const distance = source[input] | (source[input + 1] << 8);
    input += 2;
    let length = token & LENGTH_MORE;
    if (length === LENGTH_MORE) {
      const size = lengthBytes(source, input, to);
      input += size;
      length = longLength(source, input, size);
    }
    length += MATCH_SIZE_MIN;
    checkMatch(distance, length, output, target.length);
    copyMatch(target, output, distance, length);
    output += length;
  }
  if (output !== target.length) fail('it is shorter than a page');
}

/** How many further length bytes stand at `at`. */
function lengthBytes(source: Uint8Array, at: number, to: number): number {
  let end = at;
  while (end < to && source[end] === 255) end++;
  if (end === to) fail('a length is cut off');
  return end + 1 - at;
}

/** The length whose `size` further bytes end before `end`. */
function longLength(source: Uint8Array, end: number, size: number): number {
  return LENGTH_MORE + 255 * (size - 1) + source[end - 1];
}

function checkMatch(distance: number, length: number, output: number, outputMax: number): void {
  if (distance === 0 || distance > output) fail('a match begins before the page');
  if (length > outputMax - output) fail('it is longer than a page');
}

function copyLiterals(source: Uint8Array, from: number, target: Uint8Array, at: number, count: number): void {
  if (count >= COPY_SIZE_MIN) {
    target.set(source.subarray(from, from + count), at);
    return;
  }
  for (let i = 0; i < count; i++) target[at + i] = source[from + i];
}

/** Copies what stands `distance` bytes back; where it reaches into itself it repeats. */
function copyMatch(target: Uint8Array, at: number, distance: number, length: number): void {
  if (distance === 1) {
    target.fill(target[at - 1], at, at + length);
    return;
  }
  if (distance >= length && length >= COPY_SIZE_MIN) {
    target.copyWithin(at, at - distance, at - distance + length);
    return;
  }
  for (let i = at; i < at + length; i++) target[i] = target[i - distance];
}

function fail(state: string): never {
  throw new LtxError('LTX_BAD_PAYLOAD', `Cannot decompress page: ${state}`);
}
