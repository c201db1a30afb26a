import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {measureLtx} from '../../src/ltx/decoder.ts';
import {LtxEncoder} from '../../src/ltx/encoder.ts';
import type {LtxHeader} from '../../src/ltx/header.ts';
import {CHECKSUM_FLAG, toChecksum, toTxid} from '../../src/ltx/position.ts';
import {bytesSource} from '../../src/ltx/record-reader.ts';
import {
  collector,
  decode,
  decoderOf,
  encode,
  factory,
  filled,
  hasher,
  headerOf,
  type Pages,
  pageArbitrary,
  rollingChecksum,
  shortReadsSource,
} from './support.ts';
import {COMMIT_ZERO, SNAPSHOT_ZERO} from './vectors.ts';

const later = {minTxid: toTxid(2n), maxTxid: toTxid(2n), preApplyChecksum: CHECKSUM_FLAG | 2n};

interface Record {
  readonly header: LtxHeader;
  readonly pages: Pages;
  readonly post: bigint;
}

const pageSizes = fc.constantFrom(512, 1024, 4096, 32768, 65536);

const snapshots: fc.Arbitrary<Record> = pageSizes.chain(pageSize =>
  fc.array(pageArbitrary(pageSize), {maxLength: 5}).map(list => {
    const pages = new Map(list.map((page, i) => [i + 1, page]));
    return {header: headerOf({pageSize, commit: list.length}), pages, post: rollingChecksum(pages)};
  }),
);

/** Sparse pages with numbers of every length, around the lock page too. */
const transactions: fc.Arbitrary<Record> = fc
  .tuple(pageSizes, fc.boolean(), fc.nat(0xffff))
  .chain(([pageSize, noChecksum, sum]) =>
    fc
      .uniqueArray(
        fc.tuple(fc.oneof(fc.integer({min: 1, max: 9}), fc.nat(0xffff_fffe)), pageArbitrary(pageSize)),
        {
          maxLength: 5,
          selector: ([pgno]) => pgno,
        },
      )
      .map(list => {
        const lockPgno = 0x4000_0000 / pageSize + 1;
        const entries = list.filter(([pgno]) => pgno > 0 && pgno !== lockPgno).sort(([a], [b]) => a - b);
        const header = headerOf({...later, pageSize, commit: (entries.at(-1)?.[0] ?? 0) + 1, noChecksum});
        const post = noChecksum ? 0n : CHECKSUM_FLAG | BigInt(sum);
        return {
          header: noChecksum ? {...header, preApplyChecksum: 0n} : header,
          pages: new Map(entries),
          post,
        };
      }),
  );

describe('LtxEncoder', () => {
  test.each([
    [
      'an empty transaction',
      headerOf({
        ...later,
        pageSize: 4096,
        commit: 0,
        minTxid: toTxid(5n),
        maxTxid: toTxid(6n),
        timestampMs: 2000,
        preApplyChecksum: CHECKSUM_FLAG | 5n,
      }),
      COMMIT_ZERO,
    ],
    ['an empty snapshot', headerOf({pageSize: 1024, commit: 0}), SNAPSHOT_ZERO],
  ])('gives the known bytes of %s', (_name, header, bytes) => {
    expect(encode(header, new Map(), CHECKSUM_FLAG).toString('hex')).toBe(bytes.toString('hex'));
  });

  test('lays out a literal page', () => {
    const bytes = encode(headerOf(), new Map([[1, filled(512, 0x31)]]), 0xeb1a_9992_3104_4dddn);
    // Header of the page, size, token, two length bytes (15 + 255 + 242 = 512), page, end mark.
    expect(bytes.subarray(100, 113).toString('hex')).toBe('00000001000100000203f0fff2');
    expect(bytes.subarray(113, 625).equals(filled(512, 0x31))).toBe(true);
    // Frame of 525 bytes at offset 100, terminator, size 5.
    expect(bytes.subarray(625, 631 + 13).toString('hex')).toBe(
      '0000000000000164' + '8d0400' + '0000000000000005',
    );
    expect(bytes.length).toBe(625 + 6 + 5 + 8 + 16);
  });

  test.each([true, false])('survives a round trip, compress %s', compress => {
    fc.assert(
      fc.property(
        fc.oneof(snapshots, transactions),
        fc.integer({min: 1, max: 70_000}),
        (record, countMax) => {
          const bytes = encode(record.header, record.pages, record.post, {compress});
          for (const source of [bytesSource(bytes), shortReadsSource(bytes, countMax)]) {
            const {header, pages, trailer} = decode(source);
            expect(header).toEqual(record.header);
            expect([...pages.keys()]).toEqual([...record.pages.keys()]);
            for (const [pgno, page] of pages)
              expect(Buffer.compare(page, record.pages.get(pgno) ?? page)).toBe(0);
            expect(trailer.postApplyChecksum).toBe(record.post);
            const around = Buffer.concat([Buffer.alloc(7, 1), bytes, Buffer.alloc(300, 1)]);
            expect(measureLtx(bytesSource(around), 7)).toEqual({header, trailer, size: bytes.length});
            expect(measureLtx(shortReadsSource(around, countMax), 7).size).toBe(bytes.length);
          }
        },
      ),
      {numRuns: 60},
    );
  });

  test('and the decoder give page checksums where there is a hasher', () => {
    const {write, bytes} = collector();
    const header = headerOf({...later, commit: 9});
    const options = {header, crc64: factory.create(), compress: false, write};
    const encoder = new LtxEncoder({...options, pageHasher: hasher});
    const page = filled(512, 0x32);
    const expected = hasher.checksum(9, page);
    expect(encoder.encodePage(9, page)).toBe(expected);
    encoder.close(CHECKSUM_FLAG);
    expect(bytes()).toEqual(encode(header, new Map([[9, page]]), CHECKSUM_FLAG));
    expect(decoderOf(bytes()).nextPage()?.checksum).toBe(expected);
    expect(new LtxEncoder(options).encodePage(9, page)).toBeUndefined();
  });

  test('reports its size and checksum', () => {
    const {write, bytes} = collector();
    const encoder = new LtxEncoder({header: headerOf(), crc64: factory.create(), compress: true, write});
    expect(encoder.size).toBe(100);
    encoder.encodePage(1, filled(512, 0x31));
    expect(encoder.size).toBe(bytes().length);
    const {size, fileChecksum} = encoder.close(0xeb1a_9992_3104_4dddn);
    expect(size).toBe(bytes().length);
    expect(fileChecksum).toBe(bytes().readBigUint64BE(size - 8));
  });

  test('rejects page numbers out of order or bounds, and the lock page', () => {
    const page = filled(512, 0);
    const cases: [Partial<LtxHeader>, number[]][] = [
      [{...later, commit: 5}, [0]],
      [{...later, commit: 5}, [2, 2]],
      [{...later, commit: 5}, [3, 2]],
      [{...later, commit: 5}, [6]],
      [{...later, commit: 5}, [4]],
      [{commit: 5}, [2]],
      [{commit: 5}, [1, 3]],
      [{commit: 5}, [1, 2, 3, 4]],
    ];
    for (const [fields, pgnos] of cases) {
      const {write} = collector();
      const encoder = new LtxEncoder({
        header: headerOf(fields),
        crc64: factory.create(),
        compress: false,
        write,
        lockPgno: 4,
      });
      const encodeLast = () => encoder.encodePage(pgnos.at(-1) ?? 0, page);
      for (const pgno of pgnos.slice(0, -1)) encoder.encodePage(pgno, page);
      expect(encodeLast).toThrow(expect.objectContaining({code: 'LTX_BAD_PAGE'}));
    }
  });

  test('a snapshot passes over the lock page and must reach its end', () => {
    const pages = new Map([1, 2, 3, 5].map(pgno => [pgno, filled(512, pgno)]));
    const bytes = encode(headerOf({commit: 5}), pages, rollingChecksum(pages), {lockPgno: 4});
    expect([...decode(bytes, 4).pages.keys()]).toEqual([1, 2, 3, 5]);
    expect(() => decode(bytes)).toThrow(expect.objectContaining({code: 'LTX_BAD_PAGE'}));
    expect(() => encode(headerOf({commit: 6}), pages, rollingChecksum(pages), {lockPgno: 4})).toThrow(
      expect.objectContaining({code: 'LTX_BAD_PAGE'}),
    );
    // Nothing is missing where the last page is the lock page.
    const five = new Map([1, 2, 3, 4, 5].map(pgno => [pgno, filled(512, pgno)]));
    const withoutLast = encode(headerOf({commit: 6}), five, rollingChecksum(five), {lockPgno: 6});
    expect([...decode(withoutLast, 6).pages.keys()]).toEqual([1, 2, 3, 4, 5]);
  });

  test('rejects a post-apply checksum that the header does not allow', () => {
    const cases: [Partial<LtxHeader>, bigint][] = [
      [{...later}, 0n],
      [{...later}, 1n],
      [{...later, commit: 0}, CHECKSUM_FLAG | 1n],
      [{...later, noChecksum: true, preApplyChecksum: 0n}, CHECKSUM_FLAG],
      [{...later, noChecksum: true, preApplyChecksum: 0n, commit: 0}, 0n],
    ];
    for (const [fields, post] of cases) {
      expect(() => encode(headerOf(fields), new Map(), post)).toThrow(
        expect.objectContaining({code: 'LTX_BAD_TRAILER'}),
      );
    }
  });

  test('takes a page of another size, and calls after close, for mistakes of ours', () => {
    const {write} = collector();
    const encoder = new LtxEncoder({
      header: headerOf(later),
      crc64: factory.create(),
      compress: false,
      write,
    });
    expect(() => encoder.encodePage(1, filled(511, 0))).toThrow('page size');
    encoder.close(toChecksum(CHECKSUM_FLAG));
    expect(() => encoder.encodePage(1, filled(512, 0))).toThrow('encoder is open');
    expect(() => encoder.close(CHECKSUM_FLAG)).toThrow('encoder is open');
  });
});
