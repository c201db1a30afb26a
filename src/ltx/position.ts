import {assert} from '../lib/assert.ts';
import {LtxError} from './error.ts';

/** Number of a transaction in its database, unsigned 64 bit: 1-based, 0 while there is none. */
export type Txid = bigint & {readonly brand: 'Txid'};

/** Rolling checksum of a database or checksum of a page or file: unsigned 64 bit, bit 63 always set. */
export type Checksum = bigint & {readonly brand: 'Checksum'};

/** Where a database stands: its last transaction and the rolling checksum after it. Equal positions, equal bytes. */
export interface Position {
  readonly txid: Txid;
  readonly checksum: Checksum;
}

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** Bit 63, set in every stored checksum; by itself the checksum of an empty database. */
export const CHECKSUM_FLAG = 0x8000_0000_0000_0000n as Checksum;

/** The position of a database without any transaction. */
export const EMPTY_POSITION: Position = {txid: 0n as Txid, checksum: CHECKSUM_FLAG};

/** Brands `n`, which the caller knows to fit 64 bits. */
export function toTxid(n: bigint): Txid {
  assert(n >= 0n && n <= U64_MAX, 'a txid is an unsigned 64-bit number');
  return n as Txid;
}

/** Brands `n`, which the caller knows to fit 64 bits and to have bit 63 set. Input from outside is checked first. */
export function toChecksum(n: bigint): Checksum {
  assert(isChecksum(n), 'a checksum is an unsigned 64-bit number with bit 63 set');
  return n as Checksum;
}

/** Whether `n` fits 64 bits and has bit 63 set. */
export function isChecksum(n: bigint): n is Checksum {
  return n >= CHECKSUM_FLAG && n <= U64_MAX;
}

/** Whether two positions are the same in both parts. */
export function equalPositions(a: Position, b: Position): boolean {
  return a.txid === b.txid && a.checksum === b.checksum;
}

/** 16 lower-case hexadecimal digits. */
export function formatTxid(txid: Txid): string {
  return txid.toString(16).padStart(16, '0');
}

/** Reads exactly 16 lower-case hexadecimal digits. Throws `LTX_BAD_NAME`. */
export function parseTxid(text: string): Txid {
  return parseHex('txid', text) as Txid;
}

/** 16 lower-case hexadecimal digits. */
export function formatChecksum(checksum: Checksum): string {
  return checksum.toString(16).padStart(16, '0');
}

/** Reads exactly 16 lower-case hexadecimal digits whose first is 8 or more. Throws `LTX_BAD_NAME`. */
export function parseChecksum(text: string): Checksum {
  const value = parseHex('checksum', text);
  if (!isChecksum(value)) {
    throw new LtxError('LTX_BAD_NAME', `Cannot parse checksum "${text}": bit 63 is not set`, {text});
  }
  return value;
}

/** `<txid>/<checksum>`, 33 characters. */
export function formatPosition(position: Position): string {
  return `${formatTxid(position.txid)}/${formatChecksum(position.checksum)}`;
}

/** Reads `<txid>/<checksum>`. Throws `LTX_BAD_NAME`. */
export function parsePosition(text: string): Position {
  if (text.length !== 33 || text[16] !== '/') {
    throw new LtxError('LTX_BAD_NAME', `Cannot parse position "${text}": not <txid>/<checksum>`, {text});
  }
  return {txid: parseTxid(text.slice(0, 16)), checksum: parseChecksum(text.slice(17))};
}

function parseHex(what: string, text: string): bigint {
  if (!/^[0-9a-f]{16}$/.test(text)) {
    throw new LtxError('LTX_BAD_NAME', `Cannot parse ${what} "${text}": not 16 lower-case hex digits`, {
      text,
    });
  }
  return BigInt(`0x${text}`);
}
