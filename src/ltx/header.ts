import {LtxError} from './error.ts';
import {isChecksum, type Txid} from './position.ts';

// Header, big-endian:
//   0 magic "LTX1" | 4 flags u32 | 8 pageSize u32 | 12 commit u32 | 16 minTxid u64 | 24 maxTxid u64
//  32 timestampMs i64 | 40 preApplyChecksum u64 | 48 walOffset i64 | 56 walSize i64 | 64 walSalt1 u32
//  68 walSalt2 u32 | 72 nodeId u64 | 80 reserved, 20 bytes, written as zero
export const LTX_HEADER_SIZE = 100;
const MAGIC = 0x4c54_5831;
const MAGIC_SIZE = 4;
const FLAG_NO_CHECKSUM = 0x2;
export const PAGE_SIZE_MIN = 512;
export const PAGE_SIZE_MAX = 65536;

/** What one record of the format says about its transactions. */
export interface LtxHeader {
  /** Bytes per page: a power of two from 512 to 65536. */
  readonly pageSize: number;
  /** Size of the database in pages after the last transaction. */
  readonly commit: number;
  readonly minTxid: Txid;
  readonly maxTxid: Txid;
  /** Milliseconds since the Unix epoch. */
  readonly timestampMs: number;
  /** Rolling checksum before the first transaction; 0 in a snapshot and without checksums. */
  readonly preApplyChecksum: bigint;
  /** Where the transaction's frames stand in the WAL, in bytes; 0 when it came from elsewhere. */
  readonly walOffset: number;
  readonly walSize: number;
  readonly walSalt1: number;
  readonly walSalt2: number;
  /** Free for the writer. In our own logs the term of the primary that wrote the transaction. */
  readonly nodeId: bigint;
  /** Set when the record carries no rolling checksums (and must then hold none). */
  readonly noChecksum: boolean;
}

/** Whether the record stands for a whole database: it starts at transaction 1, and nothing else marks it. */
export function isSnapshot(header: LtxHeader): boolean {
  return header.minTxid === 1n;
}

/** The number of the page that holds SQLite's lock bytes, and is never stored, at the usual pending byte. */
export function defaultLockPgno(pageSize: number): number {
  return 0x4000_0000 / pageSize + 1;
}

/** Writes `header` as the first 100 bytes of `target`. Throws `LTX_BAD_HEADER` for values the format does not allow. */
export function encodeLtxHeader(
  header: LtxHeader,
  target: Uint8Array = new Uint8Array(LTX_HEADER_SIZE),
): Uint8Array {
  validateLtxHeader(header);
  const view = new DataView(target.buffer, target.byteOffset, LTX_HEADER_SIZE);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.noChecksum ? FLAG_NO_CHECKSUM : 0);
  view.setUint32(8, header.pageSize);
  view.setUint32(12, header.commit);
  view.setBigUint64(16, header.minTxid);
  view.setBigUint64(24, header.maxTxid);
  setInt53(view, 32, header.timestampMs);
  view.setBigUint64(40, header.preApplyChecksum);
  setInt53(view, 48, header.walOffset);
  setInt53(view, 56, header.walSize);
  view.setUint32(64, header.walSalt1);
  view.setUint32(68, header.walSalt2);
  view.setBigUint64(72, header.nodeId);
  target.fill(0, 80, LTX_HEADER_SIZE);
  return target;
}

/**
 * Reads and validates a header from the start of `bytes`; the reserved bytes may hold anything. Throws
 * `LTX_TRUNCATED`, `LTX_BAD_MAGIC` or `LTX_BAD_HEADER`.
 */
export function decodeLtxHeader(bytes: Uint8Array): LtxHeader {
  if (bytes.length < LTX_HEADER_SIZE) {
    throw new LtxError(
      'LTX_TRUNCATED',
      `Cannot read LTX header: ${bytes.length} of ${LTX_HEADER_SIZE} bytes`,
      {
        size: bytes.length,
      },
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, LTX_HEADER_SIZE);
  const magic = view.getUint32(0);
  if (magic !== MAGIC) {
    const hex = magic.toString(16).padStart(2 * MAGIC_SIZE, '0');
    throw new LtxError('LTX_BAD_MAGIC', `Cannot read LTX header: magic is 0x${hex}`, {magic});
  }
  const flags = view.getUint32(4);
  if (flags !== 0 && flags !== FLAG_NO_CHECKSUM) fail('flags are unknown', {flags});
  const header: LtxHeader = {
    pageSize: view.getUint32(8),
    commit: view.getUint32(12),
    minTxid: view.getBigUint64(16) as Txid,
    maxTxid: view.getBigUint64(24) as Txid,
    timestampMs: getInt53(view, 32),
    preApplyChecksum: view.getBigUint64(40),
    walOffset: getInt53(view, 48),
    walSize: getInt53(view, 56),
    walSalt1: view.getUint32(64),
    walSalt2: view.getUint32(68),
    nodeId: view.getBigUint64(72),
    noChecksum: flags === FLAG_NO_CHECKSUM,
  };
  validateLtxHeader(header);
  return header;
}

/** Throws `LTX_BAD_HEADER` unless the format allows these values together (the rules of its reference encoder). */
export function validateLtxHeader(header: LtxHeader): void {
  if (!isPageSize(header.pageSize))
    fail('page size is no power of two from 512 to 65536', {pageSize: header.pageSize});
  if (!isUint32(header.commit)) fail('commit does not fit 32 bits', {commit: header.commit});
  validateTxids(header);
  if (!Number.isSafeInteger(header.timestampMs))
    fail('timestamp is out of range', {timestampMs: header.timestampMs});
  if (!isUint64(header.nodeId)) fail('node id does not fit 64 bits', {nodeId: header.nodeId});
  validateWal(header);
  validatePreApply(header);
}

function validateTxids({minTxid, maxTxid}: LtxHeader): void {
  if (minTxid < 1n) fail('min txid is 0', {minTxid});
  if (!isUint64(maxTxid)) fail('max txid does not fit 64 bits', {maxTxid});
  if (minTxid > maxTxid) fail('min txid is above max txid', {minTxid, maxTxid});
}

function validateWal({walOffset, walSize, walSalt1, walSalt2}: LtxHeader): void {
  if (!Number.isSafeInteger(walOffset) || walOffset < 0) fail('WAL offset is out of range', {walOffset});
  if (!Number.isSafeInteger(walSize) || walSize < 0) fail('WAL size is out of range', {walSize});
  if (!isUint32(walSalt1) || !isUint32(walSalt2))
    fail('a WAL salt does not fit 32 bits', {walSalt1, walSalt2});
  if (walOffset > 0) return;
  if (walSalt1 !== 0 || walSalt2 !== 0) fail('there are WAL salts but no WAL offset', {walSalt1, walSalt2});
  if (walSize !== 0) fail('there is a WAL size but no WAL offset', {walSize});
}

function validatePreApply(header: LtxHeader): void {
  const {preApplyChecksum, noChecksum} = header;
  if (isSnapshot(header) || noChecksum) {
    if (preApplyChecksum !== 0n) fail('a pre-apply checksum is not allowed', {preApplyChecksum, noChecksum});
    return;
  }
  if (!isChecksum(preApplyChecksum)) fail('the pre-apply checksum lacks its flag', {preApplyChecksum});
}

function isPageSize(n: number): boolean {
  return Number.isInteger(n) && n >= PAGE_SIZE_MIN && n <= PAGE_SIZE_MAX && (n & (n - 1)) === 0;
}

function isUint32(n: number): boolean {
  return n >>> 0 === n;
}

function isUint64(n: bigint): boolean {
  return n >= 0n && n <= 0xffff_ffff_ffff_ffffn;
}

/** Signed 64 bit as two halves, without a bigint on the hot path. */
function setInt53(view: DataView, offset: number, n: number): void {
  const high = Math.floor(n / 0x1_0000_0000);
  view.setInt32(offset, high);
  view.setUint32(offset + 4, n - high * 0x1_0000_0000);
}

/** Signed 64 bit; what a number cannot hold exactly becomes NaN, which validation refuses. */
function getInt53(view: DataView, offset: number): number {
  const n = view.getInt32(offset) * 0x1_0000_0000 + view.getUint32(offset + 4);
  return Number.isSafeInteger(n) ? n : Number.NaN;
}

function fail(state: string, detail: Readonly<Record<string, unknown>>): never {
  throw new LtxError('LTX_BAD_HEADER', `Cannot accept LTX header: ${state}`, detail);
}
