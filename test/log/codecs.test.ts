import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {decodeChecksumHeader, encodeChecksumHeader} from '../../src/log/checksum-header.ts';
import {decodeLogBase, encodeLogBase, type LogIntent} from '../../src/log/log-base.ts';
import {
  decodeIndexEntry,
  encodeIndexEntry,
  INDEX_ENTRY_SIZE,
  type LogEntry,
} from '../../src/log/log-entry.ts';
import {parseSegmentName} from '../../src/log/segment.ts';
import {decodeSyncedMark, encodeSyncedMark} from '../../src/log/synced-mark.ts';
import {toChecksum, toTxid} from '../../src/ltx/position.ts';

const base = {position: {txid: toTxid(0x1234n), checksum: toChecksum(0x8000_0000_0000_00abn)}, term: 7n};
const header = {pageSize: 4096, pageCount: 10, ...base};
const entry: LogEntry = {
  minTxid: toTxid(5n),
  maxTxid: toTxid(6n),
  term: 3n,
  commit: 9,
  pageSize: 1024,
  preApplyChecksum: toChecksum(0x8000_0000_0000_0011n),
  postApplyChecksum: toChecksum(0x8000_0000_0000_0022n),
  timestampMs: 1_700_000_000_000,
  walOffset: 32,
  walSize: 1048,
  walSalt1: 1,
  walSalt2: 2,
  segment: '0000000000000001.ltxs',
  offset: 0x1_0000_0001,
  size: 777,
  fileChecksum: toChecksum(0x8000_0000_0000_0033n),
};

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const checksums = fc.bigInt(0n, (1n << 63n) - 1n).map(n => toChecksum(n | (1n << 63n)));
const txids = fc.bigInt(1n, (1n << 64n) - 1n).map(toTxid);
const bases = fc.record({
  position: fc.record({txid: txids, checksum: checksums}),
  term: fc.bigInt(0n, (1n << 64n) - 1n),
});

/** Every codec here guards its bytes: any truncation and any flipped bit must be noticed. */
function expectGuarded(
  bytes: Uint8Array,
  isAccepted: (bytes: Uint8Array) => boolean,
  guardedSize = bytes.length,
): void {
  expect(isAccepted(bytes)).toBe(true);
  for (let size = 0; size < bytes.length; size++) expect(isAccepted(bytes.subarray(0, size))).toBe(false);
  for (let bit = 0; bit < guardedSize * 8; bit++) {
    const flipped = bytes.slice();
    flipped[bit >> 3] ^= 1 << (bit & 7);
    expect(isAccepted(flipped)).toBe(false);
  }
  expect(isAccepted(new Uint8Array(bytes.length))).toBe(false);
}

describe('log base', () => {
  test('has its golden bytes', () => {
    expect(hex(encodeLogBase(base, {kind: 'cut', after: toTxid(0x99n), segmentSize: 0x55}))).toBe(
      '46524c4742415331' +
        '00000002' +
        '00000000' +
        '0000000000001234' +
        '80000000000000ab' +
        '0000000000000007' +
        '0000000000000099' +
        '0000000000000055' +
        '00000000' +
        '55c98f9f',
    );
  });

  test('comes back as it was', () => {
    const intents: fc.Arbitrary<LogIntent> = fc.oneof(
      fc.constant<LogIntent>({kind: 'none'}),
      fc.constant<LogIntent>({kind: 'reset'}),
      fc.record({kind: fc.constant('cut' as const), after: txids, segmentSize: fc.maxSafeNat()}),
    );
    fc.assert(
      fc.property(bases, intents, (value, intent) => {
        expect(decodeLogBase(encodeLogBase(value, intent))).toEqual({base: value, intent});
      }),
    );
  });

  test('notices wrong bytes', () => {
    expectGuarded(encodeLogBase(base, {kind: 'reset'}), bytes => {
      try {
        decodeLogBase(bytes);
        return true;
      } catch (error) {
        expect(error).toMatchObject({code: 'LOG_CORRUPT'});
        return false;
      }
    });
  });
});

describe('synced mark', () => {
  test('has its golden bytes', () => {
    expect(hex(encodeSyncedMark(toTxid(0x1234n)))).toBe('46524c474d524b31' + '0000000000001234' + '94b70e9c');
  });

  test('comes back as it was', () => {
    fc.assert(fc.property(txids, txid => decodeSyncedMark(encodeSyncedMark(txid)) === txid));
  });

  test('notices wrong bytes', () => {
    expectGuarded(encodeSyncedMark(toTxid(9n)), bytes => decodeSyncedMark(bytes) !== undefined);
  });
});

describe('checksum header', () => {
  test('has its golden bytes', () => {
    const bytes = encodeChecksumHeader(header);
    expect(bytes.length).toBe(4096);
    expect(hex(bytes.subarray(0, 44))).toBe(
      '4652504753554d31' +
        '00001000' +
        '0000000a' +
        '0000000000001234' +
        '80000000000000ab' +
        '0000000000000007' +
        'db67c101',
    );
    expect(bytes.subarray(44).every(byte => byte === 0)).toBe(true);
  });

  test('comes back as it was', () => {
    const u32 = fc.nat(0xffff_ffff);
    fc.assert(
      fc.property(bases, u32, u32, (value, pageSize, pageCount) => {
        const expected = {...value, pageSize, pageCount};
        expect(decodeChecksumHeader(encodeChecksumHeader(expected))).toEqual(expected);
      }),
    );
  });

  test('notices wrong bytes', () => {
    const bytes = encodeChecksumHeader(header);
    for (const size of [0, 44, 512, 4095])
      expect(decodeChecksumHeader(bytes.subarray(0, size))).toBeUndefined();
    for (let bit = 0; bit < 44 * 8; bit++) {
      const flipped = bytes.slice();
      flipped[bit >> 3] ^= 1 << (bit & 7);
      expect(decodeChecksumHeader(flipped)).toBeUndefined();
    }
    expect(decodeChecksumHeader(new Uint8Array(4096))).toBeUndefined();
  });
});

describe('index entry', () => {
  const encode = (value: LogEntry) => encodeIndexEntry(value, new Uint8Array(INDEX_ENTRY_SIZE));

  test('has its golden bytes', () => {
    const bytes = hex(encode(entry));
    expect(bytes.slice(0, 200)).toBe(
      '4c545831000000000000040000000009000000000000000500000000000000060000018bcfe56800800000000000001100000000000000200000000000000418000000010000000200000000000000030000000000000000000000000000000000000000',
    );
    expect(bytes.slice(200)).toBe(
      '0000000100000001' + '0000000000000309' + '8000000000000022' + '8000000000000033' + '1e3ca27e',
    );
  });

  test('comes back as it was, also at transaction 1', () => {
    expect(decodeIndexEntry(encode(entry), entry.segment)).toEqual(entry);
    const first = {...entry, minTxid: toTxid(1n), preApplyChecksum: toChecksum(1n << 63n)};
    expect(decodeIndexEntry(encode(first), entry.segment)).toEqual(first);
  });

  test('notices wrong bytes', () => {
    expectGuarded(encode(entry), bytes => decodeIndexEntry(bytes, entry.segment) !== undefined);
  });
});

test('parseSegmentName() knows segments and indexes', () => {
  expect(parseSegmentName('00000000000000ff.ltxs')).toEqual({kind: 'segment', firstTxid: 255n});
  expect(parseSegmentName('00000000000000ff.ltxi')).toEqual({kind: 'index', firstTxid: 255n});
  for (const name of [
    '00000000000000FF.ltxs',
    '0000000000000000.ltxs',
    'ff.ltxs',
    '00000000000000ff.ltxs.tmp',
    'base',
  ]) {
    expect(parseSegmentName(name)).toBeUndefined();
  }
});
