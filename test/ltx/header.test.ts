import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {LtxError} from '../../src/ltx/error.ts';
import {
  decodeLtxHeader,
  defaultLockPgno,
  encodeLtxHeader,
  isSnapshot,
  LTX_HEADER_SIZE,
  type LtxHeader,
  validateLtxHeader,
} from '../../src/ltx/header.ts';
import {CHECKSUM_FLAG, toTxid} from '../../src/ltx/position.ts';
import {headerOf} from './support.ts';

const GOLDEN_FIELDS = headerOf({
  pageSize: 1024,
  commit: 2,
  minTxid: toTxid(3n),
  maxTxid: toTxid(4n),
  timestampMs: 0,
  preApplyChecksum: CHECKSUM_FLAG,
  walOffset: 7,
  walSize: 8,
  walSalt1: 5,
  walSalt2: 6,
});
const GOLDEN = Buffer.from(
  '4c545831000000000000040000000002000000000000000300000000000000040000000000000000' +
    '80000000000000000000000000000007000000000000000800000005' +
    `00000006${'00'.repeat(28)}`,
  'hex',
);

const later = {minTxid: toTxid(2n), maxTxid: toTxid(2n)};
const u32 = fc.nat(0xffff_ffff);
const u64 = fc.bigInt({min: 0n, max: 0xffff_ffff_ffff_ffffn});

const headers: fc.Arbitrary<LtxHeader> = fc
  .record({
    pageSizeLog: fc.integer({min: 9, max: 16}),
    commit: u32,
    txids: fc.tuple(u64, u64),
    timestampMs: fc.maxSafeInteger(),
    pre: u64,
    wal: fc.option(
      fc.record({walOffset: fc.maxSafeNat(), walSize: fc.maxSafeNat(), walSalt1: u32, walSalt2: u32}),
    ),
    nodeId: u64,
    noChecksum: fc.boolean(),
  })
  .map(f => {
    const [a, b] = f.txids.map(t => (t === 0n ? 1n : t));
    const [minTxid, maxTxid] = a < b ? [a, b] : [b, a];
    const hasPre = minTxid > 1n && !f.noChecksum;
    return headerOf({
      pageSize: 2 ** f.pageSizeLog,
      commit: f.commit,
      minTxid: toTxid(minTxid),
      maxTxid: toTxid(maxTxid),
      timestampMs: f.timestampMs,
      preApplyChecksum: hasPre ? f.pre | CHECKSUM_FLAG : 0n,
      ...(f.wal === null || f.wal.walOffset === 0 ? {} : f.wal),
      nodeId: f.nodeId,
      noChecksum: f.noChecksum,
    });
  });

describe('encodeLtxHeader()', () => {
  test('gives the known bytes', () => {
    expect(Buffer.from(encodeLtxHeader(GOLDEN_FIELDS)).toString('hex')).toBe(GOLDEN.toString('hex'));
    expect(decodeLtxHeader(GOLDEN)).toEqual(GOLDEN_FIELDS);
  });

  test('survives a round trip', () => {
    fc.assert(
      fc.property(headers, header => {
        expect(decodeLtxHeader(encodeLtxHeader(header))).toEqual(header);
      }),
    );
  });

  test('writes over old bytes, the reserved ones too, and not past its end', () => {
    const target = new Uint8Array(LTX_HEADER_SIZE + 4).fill(0xff);
    encodeLtxHeader(GOLDEN_FIELDS, target);
    expect(Buffer.from(target).toString('hex')).toBe(`${GOLDEN.toString('hex')}ffffffff`);
  });

  test('keeps a time before 1970', () => {
    expect(decodeLtxHeader(encodeLtxHeader(headerOf({timestampMs: -1}))).timestampMs).toBe(-1);
  });
});

describe('validateLtxHeader()', () => {
  const bad: Record<string, Partial<LtxHeader>> = {
    'page size 0': {pageSize: 0},
    'page size 256': {pageSize: 256},
    'page size 131072': {pageSize: 131_072},
    'page size 1000': {pageSize: 1000},
    'commit of 33 bits': {commit: 2 ** 32},
    'min txid 0': {minTxid: toTxid(0n)},
    'max txid below min': {minTxid: toTxid(3n), maxTxid: toTxid(2n), preApplyChecksum: CHECKSUM_FLAG},
    'fraction of a millisecond': {timestampMs: 0.5},
    'negative WAL offset': {walOffset: -1},
    'negative WAL size': {walOffset: 1, walSize: -1},
    'salt without offset': {walSalt1: 1},
    'second salt without offset': {walSalt2: 1},
    'WAL size without offset': {walSize: 1},
    'pre-apply checksum in a snapshot': {preApplyChecksum: CHECKSUM_FLAG},
    'pre-apply checksum without checksums': {...later, noChecksum: true, preApplyChecksum: CHECKSUM_FLAG},
    'no pre-apply checksum': later,
    'pre-apply checksum without flag': {...later, preApplyChecksum: 1n},
    'node id of 65 bits': {nodeId: 1n << 64n},
  };
  test.each(Object.entries(bad))('rejects a %s', (_name, fields) => {
    expect(() => validateLtxHeader(headerOf(fields))).toThrow(
      expect.objectContaining({code: 'LTX_BAD_HEADER'}),
    );
    expect(() => encodeLtxHeader(headerOf(fields))).toThrow(
      expect.objectContaining({code: 'LTX_BAD_HEADER'}),
    );
  });
});

describe('decodeLtxHeader()', () => {
  test('rejects every truncation', () => {
    for (let size = 0; size < LTX_HEADER_SIZE; size++) {
      expect(() => decodeLtxHeader(GOLDEN.subarray(0, size))).toThrow(
        expect.objectContaining({code: 'LTX_TRUNCATED'}),
      );
    }
  });

  test('rejects another magic and unknown flags', () => {
    const magic = Buffer.from(GOLDEN);
    magic[3] = 0x32;
    expect(() => decodeLtxHeader(magic)).toThrow(expect.objectContaining({code: 'LTX_BAD_MAGIC'}));
    const flags = Buffer.from(GOLDEN);
    flags[7] = 1;
    expect(() => decodeLtxHeader(flags)).toThrow(expect.objectContaining({code: 'LTX_BAD_HEADER'}));
  });

  test('rejects offsets that a number cannot hold', () => {
    const bytes = Buffer.from(GOLDEN);
    bytes.writeBigInt64BE(1n << 53n, 48);
    expect(() => decodeLtxHeader(bytes)).toThrow(expect.objectContaining({code: 'LTX_BAD_HEADER'}));
    bytes.writeBigInt64BE(-1n, 48);
    expect(() => decodeLtxHeader(bytes)).toThrow(expect.objectContaining({code: 'LTX_BAD_HEADER'}));
  });

  test('takes or rejects each single flipped bit, and re-encodes what it takes', () => {
    for (let bit = 0; bit < 8 * LTX_HEADER_SIZE; bit++) {
      const bytes = Buffer.from(GOLDEN);
      bytes[bit >> 3] ^= 1 << (bit & 7);
      let header: LtxHeader;
      try {
        header = decodeLtxHeader(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(LtxError);
        continue;
      }
      expect(Buffer.from(encodeLtxHeader(header)).subarray(0, 80)).toEqual(bytes.subarray(0, 80));
    }
  });
});

test('isSnapshot() goes by the first txid only', () => {
  expect(isSnapshot(headerOf({maxTxid: toTxid(9n)}))).toBe(true);
  expect(isSnapshot(headerOf(later))).toBe(false);
});

test.each([
  [512, 2097153],
  [1024, 1048577],
  [2048, 524289],
  [4096, 262145],
  [8192, 131073],
  [16384, 65537],
  [32768, 32769],
  [65536, 16385],
])('defaultLockPgno(%i)', (pageSize, lockPgno) => {
  expect(defaultLockPgno(pageSize)).toBe(lockPgno);
});
