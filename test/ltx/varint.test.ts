import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {PageIndex} from '../../src/ltx/page-index.ts';
import {putUvarint, UVARINT_SIZE_MAX} from '../../src/ltx/varint.ts';

function hexOf(value: number): string {
  const target = new Uint8Array(UVARINT_SIZE_MAX + 1);
  const end = putUvarint(target, 1, value);
  expect(target[0]).toBe(0);
  return Buffer.from(target.subarray(1, end)).toString('hex');
}

describe('putUvarint()', () => {
  test.each([
    [0, '00'],
    [1, '01'],
    [127, '7f'],
    [128, '8001'],
    [136, '8801'],
    [300, 'ac02'],
    [16384, '808001'],
    [262147, '838010'],
    [2 ** 32, '8080808010'],
    [2 ** 53 - 1, 'ffffffffffffff0f'],
  ])('writes %i', (value, hex) => {
    expect(hexOf(value)).toBe(hex);
  });

  test('agrees with the definition', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), value => {
        let read = 0n;
        for (const [i, byte] of Buffer.from(hexOf(value), 'hex').entries())
          read |= BigInt(byte & 0x7f) << BigInt(7 * i);
        expect(read).toBe(BigInt(value));
      }),
    );
  });
});

describe('PageIndex', () => {
  test('gives the known bytes', () => {
    const index = new PageIndex();
    index.add(1, 100, 36);
    index.add(2, 136, 36);
    expect(Buffer.from(index.finish()).toString('hex')).toBe('01642402880124000000000000000008');
  });

  test('of no pages is its terminator and size', () => {
    expect(Buffer.from(new PageIndex().finish()).toString('hex')).toBe('000000000000000001');
  });

  test('grows', () => {
    const index = new PageIndex();
    for (let i = 1; i <= 1000; i++) index.add(1, 1, 1);
    const bytes = Buffer.from(index.finish());
    expect(bytes.length).toBe(3000 + 1 + 8);
    expect(bytes.subarray(0, 3000).every(byte => byte === 1)).toBe(true);
    expect(bytes.subarray(3000).toString('hex')).toBe('000000000000000bb9');
  });
});
