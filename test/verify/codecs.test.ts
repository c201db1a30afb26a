import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {bytesSource} from '../../src/ltx/record-reader.ts';
import {decodeDirtyList} from '../../src/verify/dirty-list.ts';
import {PageRanges} from '../../src/verify/page-ranges.ts';
import {PageSums} from '../../src/verify/page-sums.ts';

function dirtyBytes(
  generation: number,
  pending: bigint,
  records: readonly (readonly [number, number, number])[],
): Buffer {
  const bytes = Buffer.alloc(16 + 12 * records.length);
  bytes.writeUInt32LE(generation, 0);
  bytes.writeBigUInt64LE(pending, 8);
  for (const [index, record] of records.entries()) {
    for (const [field, value] of record.entries()) bytes.writeUInt32LE(value, 16 + 12 * index + 4 * field);
  }
  return bytes;
}

describe('decodeDirtyList()', () => {
  test('reads records up to the first one of another generation', () => {
    const {pendingTxid, isUnknown, pages} = decodeDirtyList(
      dirtyBytes(3, 9n, [
        [3, 5, 2],
        [3, 1, 1],
        [2, 50, 1],
        [3, 60, 1],
      ]),
    );
    expect(pendingTxid).toBe(9n);
    expect(isUnknown).toBe(false);
    expect([1, 5, 6].every(pgno => pages.has(pgno))).toBe(true);
    expect([2, 4, 7, 50, 60].some(pgno => pages.has(pgno))).toBe(false);
  });

  test('knows page 0 as "any page"', () => {
    expect(decodeDirtyList(dirtyBytes(1, 0n, [[1, 0, 0]])).isUnknown).toBe(true);
  });

  test('takes any bytes, in no time', () => {
    expect(decodeDirtyList(undefined).pages.pageCount).toBe(0);
    const huge = decodeDirtyList(dirtyBytes(1, 0n, [[1, 1, 0xffff_ffff]]));
    expect(huge.pages.has(0xffff_ffff)).toBe(true);
    fc.assert(
      fc.property(fc.uint8Array({maxLength: 200}), bytes => void decodeDirtyList(Buffer.from(bytes))),
    );
  });
});

describe('PageRanges', () => {
  const ranges = fc.array(fc.tuple(fc.integer({min: 1, max: 60}), fc.integer({min: 0, max: 8})), {
    maxLength: 20,
  });

  test('has() agrees with a set', () => {
    fc.assert(
      fc.property(ranges, added => {
        const found = new PageRanges(100);
        const expected = new Set<number>();
        for (const [first, count] of added) {
          found.add(first, count);
          for (let pgno = first; pgno < first + count; pgno++) expected.add(pgno);
        }
        for (let pgno = 0; pgno < 80; pgno++) expect(found.has(pgno)).toBe(expected.has(pgno));
      }),
    );
  });

  test('counts what it has no room for, and then has every page', () => {
    const full = new PageRanges(1);
    full.add(1, 2);
    full.add(3);
    expect([...full]).toEqual([{first: 1, last: 3}]);
    expect(full.isWhole).toBe(true);
    full.add(9);
    expect([...full]).toHaveLength(1);
    expect(full.isWhole).toBe(false);
    expect(full.pageCount).toBe(4);
    expect(full.has(1000)).toBe(true);
  });
});

/** A pair sets a page's checksum, a number truncates. */
function carryOut(steps: readonly (number | readonly [number, bigint])[]): {
  readonly sums: PageSums;
  readonly expected: Map<number, bigint>;
} {
  const sums = new PageSums();
  const expected = new Map<number, bigint>();
  for (const step of steps) {
    if (typeof step !== 'number') {
      sums.set(...step);
      expected.set(...step);
      continue;
    }
    sums.truncate(step);
    for (const pgno of expected.keys()) if (pgno > step) expected.delete(pgno);
  }
  return {sums, expected};
}

describe('PageSums', () => {
  const pgnos = fc.integer({min: 1, max: 10_000});
  const steps = fc.array(
    fc.oneof(
      {weight: 5, arbitrary: fc.tuple(pgnos, fc.bigInt({min: 1n, max: 2n ** 64n - 1n}))},
      {weight: 1, arbitrary: pgnos},
    ),
    {maxLength: 60},
  );

  test('agrees with a map through sets and truncations', () => {
    fc.assert(
      fc.property(steps, all => {
        const {sums, expected} = carryOut(all);
        const wrong = [...Array(10_001).keys()].filter(pgno => sums.get(pgno) !== (expected.get(pgno) ?? 0n));
        expect(wrong).toEqual([]);
        expect(sums.xor()).toBe([...expected.values()].reduce((sum, value) => sum ^ value, 0n));
      }),
      {numRuns: 50},
    );
  });

  test('load() reads what there is, over several chunks, and no page after the last', () => {
    const bytes = Buffer.alloc(10 + 8 * 9000);
    for (let i = 0; i < 9000; i++) bytes.writeBigUInt64BE(BigInt(i + 1), 10 + 8 * i);
    const sums = new PageSums();
    sums.load(bytesSource(bytes), 10, 8999);
    expect([1, 4096, 4097, 8999].map(pgno => sums.get(pgno))).toEqual([1n, 4096n, 4097n, 8999n]);
    expect(sums.get(9000)).toBe(0n);
    expect(sums.pgnoMax).toBe(8999);
    sums.load(bytesSource(bytes), 10, 0xffff_ffff);
    expect(sums.pgnoMax).toBe(9000);
  });
});
