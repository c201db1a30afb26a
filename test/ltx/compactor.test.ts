import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {compactLtx} from '../../src/ltx/compactor.ts';
import type {LtxHeader} from '../../src/ltx/header.ts';
import {CHECKSUM_FLAG, type Checksum, toTxid} from '../../src/ltx/position.ts';
import {
  collector,
  type Decoded,
  decode,
  decoderOf,
  encode,
  factory,
  filled,
  headerOf,
  type Pages,
  rollingChecksum,
  shortReadsSource,
} from './support.ts';

const LOCK_PGNO = 4;

/** What a record is made from: the new size, and the content of some pages by their place in it. */
interface Change {
  readonly commit: number;
  readonly writes: ReadonlyMap<number, number>;
}

interface Step {
  readonly bytes: Buffer;
  readonly header: LtxHeader;
  readonly pages: Pages;
  /** The database afterwards. */
  readonly after: Pages;
}

const changes = fc.array(
  fc.record({
    commit: fc.nat(9),
    writes: fc
      .array(fc.tuple(fc.integer({min: 1, max: 9}), fc.integer({min: 1, max: 255})), {maxLength: 4})
      .map(list => new Map(list)),
  }),
  {minLength: 1, maxLength: 9},
);

/** Applies a record the plain way: cut or keep, then write. */
function apply(database: Pages, {header, pages}: {header: LtxHeader; pages: Pages}): Pages {
  const kept = [...database].filter(([pgno]) => pgno <= header.commit);
  return new Map([...kept, ...pages].sort(([a], [b]) => a - b));
}

/** The pages that a change writes: its own, and all of the part by which the database grows. */
function pagesOf({commit, writes}: Change, sizeBefore: number): Pages {
  const pages = new Map<number, Uint8Array>();
  for (let pgno = 1; pgno <= commit; pgno++) {
    const fill = writes.get(pgno) ?? (pgno > sizeBefore ? 0 : undefined);
    if (fill !== undefined && pgno !== LOCK_PGNO) pages.set(pgno, filled(512, fill));
  }
  return pages;
}

/** A log of one record per change, from `firstTxid` on. */
function logOf(list: readonly Change[], firstTxid = 1n): Step[] {
  const steps: Step[] = [];
  let database: Pages = firstTxid === 1n ? new Map() : pagesOf({commit: 6, writes: new Map()}, 0);
  let size = firstTxid === 1n ? 0 : 6;
  for (const [i, change] of list.entries()) {
    const txid = toTxid(firstTxid + BigInt(i));
    const header = headerOf({
      commit: change.commit,
      minTxid: txid,
      maxTxid: txid,
      timestampMs: 1000 + i,
      preApplyChecksum: txid === 1n ? 0n : rollingChecksum(database),
      walOffset: 32 + i,
      walSize: 10,
      walSalt1: i,
      nodeId: BigInt(i),
    });
    const pages = pagesOf(change, size);
    database = apply(database, {header, pages});
    size = change.commit;
    const bytes = encode(header, pages, rollingChecksum(database), {
      lockPgno: LOCK_PGNO,
      compress: i % 2 === 0,
    });
    steps.push({bytes, header, pages, after: database});
  }
  return steps;
}

function compact(records: readonly Uint8Array[]): Decoded & {bytes: Buffer} {
  const {write, bytes} = collector();
  const result = compactLtx({
    inputs: records.map((record, i) =>
      decoderOf(i % 2 === 0 ? record : shortReadsSource(record, 100), LOCK_PGNO),
    ),
    crc64: factory.create(),
    compress: false,
    write,
    lockPgno: LOCK_PGNO,
  });
  const decoded = decode(bytes(), LOCK_PGNO);
  expect(decoded.header).toEqual(result.header);
  expect(bytes().length).toBe(result.size);
  expect(decoded.trailer.postApplyChecksum).toBe(result.postApplyChecksum);
  return {...decoded, bytes: bytes()};
}

function record(txid: bigint, pre: bigint, fields: Partial<LtxHeader>, pages: Pages, post: Checksum): Buffer {
  const header = headerOf({minTxid: toTxid(txid), maxTxid: toTxid(txid), preApplyChecksum: pre, ...fields});
  return encode(header, pages, post, {lockPgno: LOCK_PGNO});
}

describe('compactLtx()', () => {
  test('gives the same database as applying the records in turn', () => {
    fc.assert(
      fc.property(changes, fc.constantFrom(1n, 7n), fc.nat(8), (list, firstTxid, from) => {
        const steps = logOf(list, firstTxid);
        const start = from % steps.length;
        const part = steps.slice(start);
        const before: Pages =
          start > 0
            ? steps[start - 1].after
            : firstTxid === 1n
              ? new Map()
              : pagesOf({commit: 6, writes: new Map()}, 0);
        const {header, pages, trailer} = compact(part.map(step => step.bytes));
        const last = part[part.length - 1];
        expect(apply(before, {header, pages})).toEqual(last.after);
        expect(trailer.postApplyChecksum).toBe(rollingChecksum(last.after));
        expect(header).toEqual({
          ...last.header,
          minTxid: part[0].header.minTxid,
          preApplyChecksum: part[0].header.preApplyChecksum,
          walOffset: 0,
          walSize: 0,
          walSalt1: 0,
        });
      }),
      {numRuns: 150},
    );
  });

  test('from the first transaction on gives a snapshot without gaps', () => {
    fc.assert(
      fc.property(changes, list => {
        const steps = logOf(list);
        const {pages, header} = compact(steps.map(step => step.bytes));
        const expected = [1, 2, 3, 4, 5, 6, 7, 8, 9].filter(
          pgno => pgno <= header.commit && pgno !== LOCK_PGNO,
        );
        expect([...pages.keys()]).toEqual(expected);
      }),
      {numRuns: 50},
    );
  });

  test('gives the same whether done at once or in two levels', () => {
    fc.assert(
      fc.property(changes, fc.nat(9), (list, at) => {
        const records = logOf(list).map(step => step.bytes);
        const cut = at % records.length;
        const lower = [records.slice(0, cut), records.slice(cut)].filter(part => part.length > 0);
        const once = compact(records);
        expect(compact(lower.map(part => compact(part).bytes)).bytes).toEqual(once.bytes);
      }),
      {numRuns: 50},
    );
  });

  test('takes the last version where records overlap', () => {
    const steps = logOf([1, 2, 3, 4].map(fill => ({commit: 3, writes: new Map([[2, fill]])})));
    const [a, b, c, d] = steps.map(step => step.bytes);
    const {pages, header} = compact([compact([a, b, c]).bytes, compact([b, c, d]).bytes]);
    expect(header.maxTxid).toBe(4n);
    expect(pages).toEqual(steps[3].after);
  });

  test('merges many records', () => {
    const list = Array.from({length: 300}, (_, i) => ({
      commit: 9,
      writes: new Map([[(i % 9) + 1, i & 0xff]]),
    }));
    const steps = logOf(list);
    expect(compact(steps.map(step => step.bytes)).pages).toEqual(steps[299].after);
  });

  test('rejects gaps, repeated transactions and other page sizes', () => {
    const steps = logOf([1, 2, 3].map(fill => ({commit: 3, writes: new Map([[2, fill]])})));
    const [a, b, c] = steps.map(step => step.bytes);
    const other = encode(
      headerOf({pageSize: 1024, minTxid: toTxid(2n), maxTxid: toTxid(2n), preApplyChecksum: CHECKSUM_FLAG}),
      new Map(),
      CHECKSUM_FLAG,
    );
    expect(() => compact([a, c])).toThrow(expect.objectContaining({code: 'LTX_GAP'}));
    expect(() => compact([a, b, b])).toThrow(expect.objectContaining({code: 'LTX_GAP'}));
    expect(() => compact([b, a])).toThrow(expect.objectContaining({code: 'LTX_GAP'}));
    expect(() => compact([a, other])).toThrow(expect.objectContaining({code: 'LTX_PAGE_SIZE_MISMATCH'}));
  });

  test('rejects a record that was made for other content', () => {
    const [{bytes}] = logOf([{commit: 3, writes: new Map([[2, 9]])}]);
    const stranger = record(2n, CHECKSUM_FLAG | 5n, {commit: 3}, new Map(), (CHECKSUM_FLAG | 5n) as Checksum);
    expect(() => compact([bytes, stranger])).toThrow(expect.objectContaining({code: 'LTX_GAP'}));
  });

  test('rejects growth without its pages, which would bring old content back', () => {
    const [ten, five] = logOf([
      {commit: 9, writes: new Map([[8, 8]])},
      {commit: 5, writes: new Map()},
    ]);
    const pre = rollingChecksum(five.after);
    const pages = new Map([6, 7, 9].map(pgno => [pgno, filled(512, 1)]));
    const grown = record(3n, pre, {commit: 9}, pages, rollingChecksum(pages));
    expect(() => compact([ten.bytes, five.bytes, grown])).toThrow(
      expect.objectContaining({code: 'LTX_UNCOVERED_GROWTH'}),
    );
  });

  test('rejects a damaged input', () => {
    const steps = logOf([1, 2].map(fill => ({commit: 3, writes: new Map([[2, fill]])})));
    const damaged = Buffer.from(steps[0].bytes);
    damaged[damaged.length - 1] ^= 1;
    expect(() => compact([damaged, steps[1].bytes])).toThrow(
      expect.objectContaining({code: 'LTX_CHECKSUM_MISMATCH'}),
    );
  });

  test('rejects records without checksums', () => {
    const bytes = encode(headerOf({noChecksum: true}), new Map([[1, filled(512, 1)]]), 0n);
    expect(() => compact([bytes])).toThrow(expect.objectContaining({code: 'LTX_BAD_HEADER'}));
  });
});
