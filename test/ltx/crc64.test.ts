import fc from 'fast-check';
import {beforeAll, describe, expect, test} from 'vitest';
import {Crc64Factory} from '../../src/ltx/crc64.ts';

let factory: Crc64Factory;
beforeAll(async () => {
  factory = await Crc64Factory.open();
});

function crcOf(bytes: Uint8Array): bigint {
  const crc = factory.create();
  crc.update(bytes);
  return crc.digest();
}

/** The definition, bit by bit. */
function slowCrc(bytes: Uint8Array): bigint {
  let register = 0xffff_ffff_ffff_ffffn;
  for (const byte of bytes) {
    register ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) {
      register = (register & 1n) === 1n ? (register >> 1n) ^ 0xd800_0000_0000_0000n : register >> 1n;
    }
  }
  return register ^ 0xffff_ffff_ffff_ffffn;
}

describe('Crc64', () => {
  test.each([
    ['123456789', 0xb90956c775a41001n],
    ['', 0n],
    ['\0', 0x6f90000000000000n],
    ['a', 0x3420000000000000n],
    ['LTX1', 0x43350e58d0000000n],
  ])('gives the published value of %j', (text, expected) => {
    expect(crcOf(Buffer.from(text))).toBe(expected);
  });

  test('agrees with the definition on both sides of each size limit', () => {
    for (const size of [7, 8, 9, 127, 128, 129, 4096, 16383, 16384, 16385, 16384 + 127, 32768 + 128, 65536]) {
      const bytes = Uint8Array.from({length: size}, (_, i) => (i * 31 + (i >> 5)) & 0xff);
      expect(crcOf(bytes)).toBe(slowCrc(bytes));
    }
  });

  test('does not care how the bytes are split', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({maxLength: 600, size: 'max'}), {maxLength: 6}), parts => {
        const crc = factory.create();
        for (const part of parts) crc.update(part);
        expect(crc.digest()).toBe(slowCrc(Buffer.concat(parts)));
      }),
      {numRuns: 60},
    );
  });

  test('keeps interleaved streams apart, and goes on after digest()', () => {
    const page = new Uint8Array(4096).fill(7);
    const streams = [factory.create(), factory.create(), factory.create()];
    for (let round = 0; round < 3; round++) {
      for (const [i, crc] of streams.entries()) {
        crc.update(Uint8Array.of(i, round));
        crc.update(page);
        crc.digest();
      }
    }
    for (const [i, crc] of streams.entries()) {
      const bytes = [0, 1, 2].flatMap(round => [Uint8Array.of(i, round), page]);
      expect(crc.digest()).toBe(slowCrc(Buffer.concat(bytes)));
    }
  });

  test('reset() starts anew', () => {
    const crc = factory.create();
    crc.update(new Uint8Array(5000));
    crc.reset();
    crc.update(Buffer.from('123456789'));
    expect(crc.digest()).toBe(0xb90956c775a41001n);
  });
});
