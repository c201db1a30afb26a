import {compressFrameSync} from 'lz4-napi';
import {describe, expect, test} from 'vitest';
import {measureLtx} from '../../src/ltx/decoder.ts';
import {LtxError} from '../../src/ltx/error.ts';
import {CHECKSUM_FLAG, toTxid} from '../../src/ltx/position.ts';
import {bytesSource} from '../../src/ltx/record-reader.ts';
import {
  type Decoded,
  decode,
  decoderOf,
  encode,
  factory,
  filled,
  headerOf,
  rollingChecksum,
  shortReadsSource,
} from './support.ts';
import * as vectors from './vectors.ts';

const small = new Map([
  [1, filled(512, 0x61)],
  [2, Uint8Array.from({length: 512}, (_, i) => (i * i) >> 3)],
]);
const smallHeader = headerOf({commit: 2, walOffset: 32, walSize: 1072, walSalt1: 1, walSalt2: 2, nodeId: 7n});

/** The records on which every truncation and every flipped bit is tried. */
const victims: [string, Buffer][] = [
  ['in block encoding', vectors.TWO_BLOCKS],
  ['in LZ4-frame encoding', vectors.ONE_FRAME],
  ['without checksums', vectors.ONE_BLOCK_NO_CHECKSUM],
  ['without pages', vectors.COMMIT_ZERO],
  ['with literals and a WAL', encode(smallHeader, small, rollingChecksum(small))],
  ['compressed', encode(smallHeader, small, rollingChecksum(small), {compress: true})],
];

function tryDecode(bytes: Uint8Array): Decoded | LtxError {
  try {
    return decode(bytes);
  } catch (error) {
    if (error instanceof LtxError) return error;
    throw error;
  }
}

describe('LtxDecoder', () => {
  test.each(Object.entries(vectors.RECORDS))('accepts the known record %s', (_name, bytes) => {
    for (const source of [bytesSource(bytes), shortReadsSource(bytes, 3)]) {
      const {header, pages, trailer} = decode(source);
      if (!header.noChecksum) expect(trailer.postApplyChecksum).toBe(rollingChecksum(pages));
      else expect(trailer.postApplyChecksum).toBe(0n);
      expect(measureLtx(source, 0)).toEqual({header, trailer, size: bytes.length});
    }
  });

  test('gives the known pages', () => {
    expect(decode(vectors.ONE_FRAME).pages).toEqual(new Map([[1, filled(512, 0x31)]]));
    expect(decode(vectors.LATER_BLOCK).header).toEqual(
      headerOf({minTxid: toTxid(5n), maxTxid: toTxid(5n), preApplyChecksum: CHECKSUM_FLAG | 5n}),
    );
    expect(decode(vectors.TWO_BLOCKS).pages).toEqual(
      new Map([
        [1, filled(1024, 0x32)],
        [2, filled(1024, 0x33)],
      ]),
    );
  });

  test('reads LZ4 frames of pages that compress badly', () => {
    const page = Uint8Array.from({length: 4096}, (_, i) => Math.imul(i + 1, 0x9e3779b1) >>> 23);
    const bytes = frameRecord(page);
    expect(decode(bytes).pages.get(1)).toEqual(page);
    expect(measureLtx(bytesSource(bytes), 0).size).toBe(bytes.length);
  });

  test.each(victims)('rejects every truncation of a record %s', (_name, bytes) => {
    decode(bytes);
    for (let size = 0; size < bytes.length; size++) {
      const part = bytes.subarray(0, size);
      expect(() => decode(part)).toThrow(expect.objectContaining({code: 'LTX_TRUNCATED'}));
      expect(() => decode(shortReadsSource(part, 64))).toThrow(
        expect.objectContaining({code: 'LTX_TRUNCATED'}),
      );
      expect(() => measureLtx(bytesSource(part), 0)).toThrow(
        expect.objectContaining({code: 'LTX_TRUNCATED'}),
      );
    }
  });

  test.each(victims)('rejects every flipped bit of a record %s, or gives the same', (_name, bytes) => {
    const expected = decode(bytes);
    let harmless = 0;
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] ^= 1 << (bit & 7);
      const actual = tryDecode(flipped);
      if (actual instanceof LtxError) continue;
      expect(actual).toEqual(expected);
      harmless++;
    }
    // What may change: the content checksum in an LZ4 frame, and equivalent ways to compress.
    expect(harmless).toBeLessThanOrEqual(100);
  });

  test('measureLtx() of flipped bits gives an error or an end within the bytes', () => {
    const [, bytes] = victims[4];
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const flipped = Buffer.concat([bytes, bytes]);
      flipped[bit >> 3] ^= 1 << (bit & 7);
      try {
        expect(measureLtx(bytesSource(flipped), 0).size).toBeLessThanOrEqual(flipped.length);
      } catch (error) {
        expect(error).toBeInstanceOf(LtxError);
      }
    }
  });

  test('rejects bytes after the record', () => {
    const bytes = Buffer.concat([vectors.ONE_BLOCK, Buffer.alloc(1)]);
    expect(() => decode(bytes)).toThrow(expect.objectContaining({code: 'LTX_TRAILING_BYTES'}));
  });

  test.each([
    ['page numbers out of order', [2, 1]],
    ['the same page twice', [1, 1]],
    ['a page past the end', [1, 9]],
    ['the lock page', [1, 4]],
  ])('rejects %s, with all checksums right', (_name, pgnos) => {
    const bytes = looseRecord(pgnos);
    expect(() => decode(bytes, 4)).toThrow(expect.objectContaining({code: 'LTX_BAD_PAGE'}));
    expect(() => measureLtx(bytesSource(bytes), 0, 4)).toThrow(
      expect.objectContaining({code: 'LTX_BAD_PAGE'}),
    );
  });

  test('rejects an index that disagrees with the pages, with all checksums right', () => {
    decode(looseRecord([1, 2]));
    const bytes = looseRecord([1, 2], index => index.writeUInt8(99, 1));
    expect(() => decode(bytes)).toThrow(expect.objectContaining({code: 'LTX_BAD_INDEX'}));
    expect(() => measureLtx(bytesSource(bytes), 0)).toThrow(expect.objectContaining({code: 'LTX_BAD_INDEX'}));
  });

  test.each([0, 531, 0x7fff_ffff, 0xffff_fff0])('rejects a payload of %i bytes before reading it', size => {
    const bytes = Buffer.from(looseRecord([1, 2]));
    bytes.writeUInt32BE(size, 106);
    expect(() => decode(bytes)).toThrow(expect.objectContaining({code: 'LTX_BAD_PAYLOAD'}));
    expect(() => measureLtx(bytesSource(bytes), 0)).toThrow(
      expect.objectContaining({code: 'LTX_BAD_PAYLOAD'}),
    );
  });

  test('rejects a snapshot whose pages do not give its post-apply checksum', () => {
    const bytes = encode(smallHeader, small, CHECKSUM_FLAG | 1n);
    expect(() => decode(bytes)).toThrow(expect.objectContaining({code: 'LTX_BAD_TRAILER'}));
  });

  test('close() reads the pages that are left', () => {
    const decoder = decoderOf(victims[4][1]);
    expect(decoder.nextPage()?.pgno).toBe(1);
    expect(decoder.close().postApplyChecksum).toBe(rollingChecksum(small));
    expect(() => decoder.nextPage()).toThrow('decoder is open');
  });

  test('passes through what the source throws', () => {
    const source = {
      size: 1000,
      read() {
        throw new RangeError('no disk');
      },
    };
    expect(() => decode(source)).toThrow(RangeError);
  });
});

function crcFlagged(bytes: Uint8Array): bigint {
  const crc = factory.create();
  crc.update(bytes);
  return CHECKSUM_FLAG | crc.digest();
}

function uint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

/** A record in LZ4-frame encoding, written by hand. */
function frameRecord(page: Uint8Array): Buffer {
  const header = encode(headerOf({pageSize: page.length, commit: 0}), new Map(), CHECKSUM_FLAG).subarray(
    0,
    100,
  );
  header.writeUInt32BE(1, 12);
  const frame = compressFrameSync(Buffer.from(page), {contentChecksum: true});
  const size = 6 + frame.length;
  expect(size).toBeGreaterThan(127);
  const index = Buffer.from([1, 100, (size & 0x7f) | 0x80, size >> 7, 0]);
  const post = rollingChecksum(new Map([[1, page]]));
  const logical = (content: Uint8Array) =>
    Buffer.concat([
      header,
      Buffer.from([0, 0, 0, 1, 0, 0]),
      content,
      Buffer.alloc(6),
      index,
      uint64(5n),
      uint64(post),
    ]);
  return Buffer.concat([logical(frame), uint64(crcFlagged(logical(page)))]);
}

/** Pages of 512 literals under any numbers (each below 128), with an index and checksums that fit, unless spoilt. */
function looseRecord(pgnos: readonly number[], spoil: (index: Buffer) => void = () => {}): Buffer {
  const header = encode(
    headerOf({minTxid: toTxid(2n), maxTxid: toTxid(2n), preApplyChecksum: CHECKSUM_FLAG, commit: 8}),
    new Map(),
    CHECKSUM_FLAG,
  ).subarray(0, 100);
  const page = filled(512, 1);
  const size = 525;
  const varint = (n: number) => (n < 128 ? [n] : [(n & 0x7f) | 0x80, n >> 7]);
  const entries = pgnos.flatMap((pgno, i) => [pgno, ...varint(100 + i * size), ...varint(size)]);
  const index = Buffer.from([...entries, 0]);
  spoil(index);
  const build = (head: readonly number[]) => {
    const frames = pgnos.map(pgno =>
      Buffer.concat([Buffer.from([0, 0, 0, pgno, 0, 1, 0, 0, 2, 3, ...head]), page]),
    );
    return Buffer.concat([
      header,
      ...frames,
      Buffer.alloc(6),
      index,
      uint64(BigInt(index.length)),
      uint64(CHECKSUM_FLAG),
    ]);
  };
  return Buffer.concat([build([0xf0, 0xff, 0xf2]), uint64(crcFlagged(build([])))]);
}
