import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {
  CHECKSUM_FLAG,
  EMPTY_POSITION,
  equalPositions,
  formatChecksum,
  formatPosition,
  formatTxid,
  isChecksum,
  parseChecksum,
  parsePosition,
  parseTxid,
  toChecksum,
  toTxid,
} from '../../src/ltx/position.ts';

const u64 = fc.bigInt({min: 0n, max: 0xffff_ffff_ffff_ffffn});

describe('positions', () => {
  test('are written as two groups of 16 digits', () => {
    expect(formatPosition(EMPTY_POSITION)).toBe('0000000000000000/8000000000000000');
    expect(formatTxid(toTxid(0xabcn))).toBe('0000000000000abc');
    expect(formatChecksum(toChecksum(0xefff_ffff_ecd9_9000n))).toBe('efffffffecd99000');
  });

  test('survive being written and read', () => {
    fc.assert(
      fc.property(u64, u64, (txid, crc) => {
        const position = {txid: toTxid(txid), checksum: toChecksum(crc | CHECKSUM_FLAG)};
        expect(parsePosition(formatPosition(position))).toEqual(position);
        expect(equalPositions(parsePosition(formatPosition(position)), position)).toBe(true);
      }),
    );
  });

  test.each([
    '',
    '0',
    '000000000000000A',
    '00000000000000001',
    '0x00000000000001',
    ' 000000000000001',
    '-000000000000001',
    '0000000000000001\n',
  ])('parseTxid() rejects %j', text => {
    expect(() => parseTxid(text)).toThrow(expect.objectContaining({code: 'LTX_BAD_NAME', detail: {text}}));
  });

  test('parseChecksum() rejects a checksum without its flag', () => {
    expect(() => parseChecksum('7fffffffffffffff')).toThrow(expect.objectContaining({code: 'LTX_BAD_NAME'}));
  });

  test.each([
    '0000000000000000-8000000000000000',
    '0000000000000000/800000000000000',
    '0000000000000000/80000000000000000',
    '0000000000000000/0000000000000000',
    '',
  ])('parsePosition() rejects %j', text => {
    expect(() => parsePosition(text)).toThrow(expect.objectContaining({code: 'LTX_BAD_NAME'}));
  });

  test('equalPositions() compares both parts', () => {
    const other = {txid: EMPTY_POSITION.txid, checksum: toChecksum(CHECKSUM_FLAG + 1n)};
    expect(equalPositions(EMPTY_POSITION, other)).toBe(false);
    expect(equalPositions(EMPTY_POSITION, {...EMPTY_POSITION, txid: toTxid(1n)})).toBe(false);
  });

  test('brands refuse what does not fit', () => {
    expect(() => toTxid(-1n)).toThrow('unsigned 64-bit');
    expect(() => toTxid(1n << 64n)).toThrow('unsigned 64-bit');
    expect(() => toChecksum(1n)).toThrow('bit 63');
    expect(isChecksum(1n << 64n)).toBe(false);
  });
});
