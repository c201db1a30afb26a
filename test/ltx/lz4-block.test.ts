import fc from 'fast-check';
import {compressSync, uncompressSync} from 'lz4-napi';
import {describe, expect, test} from 'vitest';
import {LtxError} from '../../src/ltx/error.ts';
import {
  decodeLz4Block,
  isLiteralsBlock,
  literalsHeadSize,
  lz4Bound,
  putLiteralsHead,
} from '../../src/ltx/lz4-block.ts';
import {pageArbitrary} from './support.ts';

const pageSizes = fc.constantFrom(512, 1024, 4096, 65536);
const pages = pageSizes.chain(pageArbitrary);

function decode(block: Uint8Array, size: number): Uint8Array {
  const target = new Uint8Array(size);
  decodeLz4Block(block, 0, block.length, target);
  return target;
}

function literalsBlock(page: Uint8Array): Buffer {
  const block = Buffer.alloc(literalsHeadSize(page.length) + page.length);
  block.set(page, putLiteralsHead(block, 0, page.length));
  return block;
}

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

describe('decodeLz4Block()', () => {
  test('undoes what another implementation compressed', () => {
    fc.assert(
      fc.property(pages, page => {
        const block = compressSync(Buffer.from(page)).subarray(4);
        expect(block.length).toBeLessThanOrEqual(lz4Bound(page.length));
        expect(Buffer.from(decode(block, page.length)).equals(page)).toBe(true);
      }),
      {numRuns: 60},
    );
  });

  test.each([
    ['literals only', '30 616263', 'abc'],
    ['a match', '30 616263 0300 10 64', 'abcabcad'],
    ['an overlapping match', '20 6162 0200 30 616263', 'ababababc'],
    ['a repeated byte', '10 61 0100 10 62', 'aaaaab'],
    ['an empty last sequence', '10 61 0100 00', 'aaaaa'],
  ])('decodes %s', (_name, block, text) => {
    expect(Buffer.from(decode(hex(block), text.length)).toString()).toBe(text);
  });

  const bad: [string, string, number][] = [
    ['no bytes', '', 4],
    ['a cut length', 'f0', 15],
    ['a length that never ends', 'f0 ff ff', 1000],
    ['cut literals', '40 616263', 4],
    ['too many literals', '40 61626364', 3],
    ['too few literals', '30 616263', 4],
    ['half a distance', '10 61 01', 8],
    ['distance 0', '10 61 0000 10 62', 6],
    ['a distance before the page', '10 61 0200 10 62', 6],
    ['a match past the end', '10 61 0100 10 62', 4],
    ['a match at the end', '10 61 0100', 5],
    ['a cut match length', '1f 61 0100', 30],
  ];
  test.each(bad)('rejects %s', (_name, block, size) => {
    expect(() => decode(hex(block), size)).toThrow(expect.objectContaining({code: 'LTX_BAD_PAYLOAD'}));
  });

  test('of any bytes gives a page or an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({maxLength: 80}), fc.nat(200), (block, size) => {
        try {
          decode(block, size);
        } catch (error) {
          expect(error).toBeInstanceOf(LtxError);
        }
      }),
      {numRuns: 2000},
    );
  });

  test('stays inside its block and page', () => {
    const page = Buffer.from('ab'.repeat(300));
    const block = compressSync(page).subarray(4);
    const around = Buffer.concat([hex('ffff'), block, hex('ffff')]);
    const target = new Uint8Array(page.length + 2).fill(9);
    decodeLz4Block(around, 2, 2 + block.length, target.subarray(1, 1 + page.length));
    expect(Buffer.from(target)).toEqual(Buffer.concat([hex('09'), page, hex('09')]));
  });
});

describe('a block of literals', () => {
  test.each([15, 16, 269, 270, 271, 512, 4096, 65536])('of %i bytes is a block', size => {
    const page = Uint8Array.from({length: size}, (_, i) => i * 7);
    const block = literalsBlock(page);
    expect(isLiteralsBlock(block, 0, block.length, size)).toBe(true);
    expect(Buffer.from(decode(block, size)).equals(page)).toBe(true);
    const prefixed = Buffer.concat([Buffer.alloc(4), block]);
    prefixed.writeUInt32LE(size);
    expect(uncompressSync(prefixed).equals(page)).toBe(true);
  });

  test('is not seen where a length byte differs, or the size', () => {
    const block = literalsBlock(new Uint8Array(4096));
    for (let at = 0; at < literalsHeadSize(4096); at++) {
      const other = Buffer.from(block);
      other[at] ^= 1;
      expect(isLiteralsBlock(other, 0, other.length, 4096)).toBe(false);
    }
    expect(isLiteralsBlock(block, 0, block.length - 1, 4096)).toBe(false);
    expect(isLiteralsBlock(block, 0, block.length, 4095)).toBe(false);
  });
});
