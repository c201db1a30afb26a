import fc from 'fast-check';
import {expect, test} from 'vitest';
import {AssertionError} from '../../src/lib/assert.ts';
import {ByteReader, BytesError, ByteWriter, readU32be, utf8Size, writeU32be} from '../../src/lib/bytes.ts';

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof BytesError) return error.code;
    throw error;
  }
  return 'none';
}

test('ByteReader reads golden bytes in every width and order', () => {
  const reader = new ByteReader(Buffer.from('ff0102fffefdfc04030201800000000000000161e282ac', 'hex'));
  expect(reader.u8()).toBe(255);
  expect(reader.u16be()).toBe(0x0102);
  expect(reader.u32be()).toBe(0xfffefdfc);
  expect(reader.u32le()).toBe(0x01020304);
  expect(reader.u64be()).toBe(0x8000000000000001n);
  expect(reader.position).toBe(19);
  expect(reader.utf8(4)).toBe('a€');
  expect(reader.remaining).toBe(0);
  reader.expectEnd();
});

test('ByteReader sees only its part of a larger buffer', () => {
  const reader = new ByteReader(Uint8Array.of(1, 2, 3, 4, 5).subarray(1, 4), 1);
  expect([...reader.bytes(2)]).toEqual([3, 4]);
  expect(codeOf(() => reader.u8())).toBe('BYTES_TRUNCATED');
});

test('ByteReader throws BYTES_TRUNCATED and stays where it is when too little remains', () => {
  const reads: readonly [number, (reader: ByteReader) => unknown][] = [
    [1, r => r.u8()],
    [2, r => r.u16be()],
    [4, r => r.u32be()],
    [4, r => r.u32le()],
    [8, r => r.u64be()],
    [8, r => r.u64le()],
    [8, r => r.u64beNumber()],
    [8, r => r.u64leNumber()],
    [3, r => r.utf8(3)],
    [3, r => r.bytes(3)],
    [3, r => r.skip(3)],
  ];
  for (const [size, read] of reads) {
    const reader = new ByteReader(new Uint8Array(size - 1));
    expect(codeOf(() => read(reader))).toBe('BYTES_TRUNCATED');
    expect(reader.position).toBe(0);
    read(new ByteReader(new Uint8Array(size)));
  }
});

test('u64beNumber() and u64leNumber() refuse more than 2^53-1', () => {
  const largest = new ByteReader(Buffer.from('001fffffffffffffffffffffffff1f00', 'hex'));
  expect(largest.u64beNumber()).toBe(Number.MAX_SAFE_INTEGER);
  expect(largest.u64leNumber()).toBe(Number.MAX_SAFE_INTEGER);
  const reader = new ByteReader(Buffer.from('0020000000000000', 'hex'));
  expect(codeOf(() => reader.u64beNumber())).toBe('BYTES_OVERSIZE');
  expect(reader.position).toBe(0);
});

test('utf8() refuses what is not UTF-8 and keeps a byte order mark', () => {
  expect(codeOf(() => new ByteReader(Uint8Array.of(0x61, 0xff)).utf8(2))).toBe('BYTES_BAD_UTF8');
  expect(codeOf(() => new ByteReader(Uint8Array.of(0xed, 0xa0, 0x80)).utf8(3))).toBe('BYTES_BAD_UTF8');
  expect(new ByteReader(Uint8Array.of(0xef, 0xbb, 0xbf)).utf8(3)).toBe('\ufeff');
});

test('expectEnd() throws BYTES_OVERSIZE when bytes are left', () => {
  expect(codeOf(() => new ByteReader(new Uint8Array(1)).expectEnd())).toBe('BYTES_OVERSIZE');
});

test('ByteWriter refuses what does not fit, without moving', () => {
  const writer = new ByteWriter(new Uint8Array(3));
  expect(codeOf(() => writer.u32be(1))).toBe('BYTES_OVERSIZE');
  expect(codeOf(() => writer.utf8('abcd'))).toBe('BYTES_OVERSIZE');
  expect([...writer.u16be(0x0102).u8(3).written()]).toEqual([1, 2, 3]);
  expect(writer.remaining).toBe(0);
});

test('ByteWriter asserts that values are in range', () => {
  const writer = new ByteWriter(new Uint8Array(16));
  expect(() => writer.u8(256)).toThrow(AssertionError);
  expect(() => writer.u16be(-1)).toThrow(AssertionError);
  expect(() => writer.u32be(2 ** 32)).toThrow(AssertionError);
  expect(() => writer.u32le(0.5)).toThrow(AssertionError);
  expect(() => writer.u64be(2n ** 64n)).toThrow(AssertionError);
  expect(() => writer.u64beNumber(2 ** 53)).toThrow(AssertionError);
  expect(writer.position).toBe(0);
});

test('ByteReader reads back what ByteWriter wrote', () => {
  const u64 = fc.bigInt({min: 0n, max: 2n ** 64n - 1n});
  fc.assert(
    fc.property(
      fc.tuple(fc.nat(255), fc.nat(65535), fc.nat(0xffffffff)),
      u64,
      fc.nat({max: Number.MAX_SAFE_INTEGER}),
      fc.string({unit: 'grapheme'}),
      fc.uint8Array(),
      ([a, b, c], d, e, text, bytes) => {
        const writer = new ByteWriter(new Uint8Array(1024));
        writer.u8(a).u16be(b).u32be(c).u32le(c).u64be(d).u64le(d).u64beNumber(e).zeros(3);
        writer.u16be(utf8Size(text)).utf8(text).bytes(bytes);
        const reader = new ByteReader(writer.written());
        expect([reader.u8(), reader.u16be(), reader.u32be(), reader.u32le()]).toEqual([a, b, c, c]);
        expect([reader.u64be(), reader.u64le(), reader.u64beNumber()]).toEqual([d, d, e]);
        reader.skip(3);
        expect(reader.utf8(reader.u16be())).toBe(text);
        expect([...reader.bytes(bytes.length)]).toEqual([...bytes]);
        reader.expectEnd();
      },
    ),
  );
});

test('readU32be() reads what writeU32be() wrote', () => {
  const bytes = new Uint8Array(8);
  writeU32be(bytes, 3, 0xfedcba98);
  expect([...bytes]).toEqual([0, 0, 0, 0xfe, 0xdc, 0xba, 0x98, 0]);
  expect(readU32be(bytes, 3)).toBe(0xfedcba98);
});
