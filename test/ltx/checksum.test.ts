import {beforeAll, describe, expect, test} from 'vitest';
import {PageHasher, xorChecksum} from '../../src/ltx/checksum.ts';
import {Crc64Factory} from '../../src/ltx/crc64.ts';
import {CHECKSUM_FLAG, type Checksum} from '../../src/ltx/position.ts';

let factory: Crc64Factory;
let hasher: PageHasher;
beforeAll(async () => {
  factory = await Crc64Factory.open();
  hasher = new PageHasher(factory);
});

function pageOf(pageSize: number, byte: number): Uint8Array {
  return new Uint8Array(pageSize).fill(byte);
}

function rolling(pageSize: number, bytes: readonly number[]): Checksum {
  return bytes.reduce<Checksum>(
    (sum, byte, i) => xorChecksum(sum, hasher.checksum(i + 1, pageOf(pageSize, byte))),
    CHECKSUM_FLAG,
  );
}

describe('PageHasher.checksum()', () => {
  test.each([
    [1, 0x32, 512, 0xc6e57aa102377eeen],
    [2, 0x33, 512, 0xcd62389fecd99000n],
    [1, 0x32, 1024, 0xe0d53ff6f3d08215n],
    [2, 0x33, 1024, 0x815ca49babaa28bfn],
    [1, 0x01, 512, 0xe4e4aaa102377eeen],
    [2, 0x02, 512, 0xc9c9554231044dddn],
    [3, 0x03, 512, 0xc2d2001cdfeaa333n],
    [1, 0x81, 1024, 0xeb953fc47685d740n],
    [2, 0x82, 1024, 0xf947c91f1baa28bfn],
    [3, 0x83, 1024, 0x98f664a9c0b08215n],
    [1, 0x91, 1024, 0x914e5275dc2f7dean],
    [3, 0x93, 1024, 0xe22d09186a1a28bfn],
    [1, 0, 512, 0xefb1f44fecd99000n],
    [1, 0, 1024, 0xace3e492397a28bfn],
    [1, 0, 4096, 0xd9328f592d9e733dn],
    [2, 0, 4096, 0xf7901e47304ca33fn],
  ])('page %i of bytes %i, %i long', (pgno, byte, pageSize, expected) => {
    expect(hasher.checksum(pgno, pageOf(pageSize, byte))).toBe(expected);
  });

  test('hashes page numbers above 2^31', () => {
    const a = hasher.checksum(0xffff_ffff, pageOf(512, 1));
    expect(a).not.toBe(hasher.checksum(0x7fff_ffff, pageOf(512, 1)));
    expect(a & CHECKSUM_FLAG).toBe(CHECKSUM_FLAG);
  });

  test('refuses page 0 as a mistake of ours', () => {
    expect(() => hasher.checksum(0, pageOf(512, 1))).toThrow('1-based');
  });
});

describe('PageHasher.checksumInto()', () => {
  test('gives both checksums of one pass', () => {
    for (const pageSize of [512, 1024, 4096, 32768, 65536]) {
      const page = Uint8Array.from({length: pageSize}, (_, i) => (i * 31) >> 3);
      const [once, twice] = [factory.create(), factory.create()];
      for (const pgno of [1, 2, 0xffff_ffff]) {
        for (const stream of [once, twice]) stream.update(Uint8Array.of(pgno & 0xff, 1, 2, 3));
        twice.update(page);
        expect(hasher.checksumInto(once, pgno, page)).toBe(hasher.checksum(pgno, page));
        expect(once.digest()).toBe(twice.digest());
      }
    }
  });
});

describe('xorChecksum()', () => {
  test.each([
    [512, [1, 2, 3], 0xefffffffecd99000n],
    [512, [0x32, 0x33], 0x8b87423eeeeeeeeen],
    [1024, [0x32, 0x33], 0xe1899b6d587aaaaan],
    [512, [0x31], 0xeb1a999231044dddn],
    [1024, [0x81, 0x82, 0x83], 0x8a249272ad9f7dean],
    [1024, [0x91, 0x82, 0x93], 0x8a249272ad9f7dean],
    [1024, [0x81], 0xeb953fc47685d740n],
    [4096, [], 0x8000000000000000n],
  ])('rolls over pages of %i bytes filled with %j', (pageSize, bytes, expected) => {
    expect(rolling(pageSize, bytes)).toBe(expected);
  });

  test('replaces and removes pages', () => {
    const before = rolling(1024, [0x81, 0x82, 0x83]);
    const out = hasher.checksum(1, pageOf(1024, 0x81));
    const replaced = xorChecksum(xorChecksum(before, out), hasher.checksum(1, pageOf(1024, 0x91)));
    expect(replaced).toBe(0xf0ffffc30735d740n);
    expect(xorChecksum(replaced, hasher.checksum(3, pageOf(1024, 0x83)))).toBe(0xe8099b6ac7855555n);
  });

  test('rolls over 262,155 pages without the lock page', () => {
    const page = pageOf(4096, 0x78);
    let sum = CHECKSUM_FLAG;
    for (let pgno = 1; pgno <= 262_155; pgno++) {
      if (pgno !== 262_145) sum = xorChecksum(sum, hasher.checksum(pgno, page));
    }
    expect(sum).toBe(0xc19b668c376662c7n);
  }, 60_000);
});
