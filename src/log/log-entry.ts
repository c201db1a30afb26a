import {crc32} from 'node:zlib';
import {LtxError} from '../ltx/error.ts';
import {decodeLtxHeader, encodeLtxHeader, LTX_HEADER_SIZE, type LtxHeader} from '../ltx/header.ts';
import {CHECKSUM_FLAG, type Checksum, isChecksum, type Txid} from '../ltx/position.ts';
import {LogError} from './error.ts';

/** What the log knows of one record without reading it. Sizes and offsets are bytes. */
export interface LogEntry {
  readonly minTxid: Txid;
  readonly maxTxid: Txid;
  /** Epoch of the primary that wrote the record. */
  readonly term: bigint;
  /** Size of the database in pages after the record. */
  readonly commit: number;
  readonly pageSize: number;
  /** Of the database before the record; that of an empty one when the record starts at transaction 1. */
  readonly preApplyChecksum: Checksum;
  readonly postApplyChecksum: Checksum;
  readonly timestampMs: number;
  readonly walOffset: number;
  readonly walSize: number;
  readonly walSalt1: number;
  readonly walSalt2: number;
  /** Name of the segment file that holds the record. */
  readonly segment: string;
  /** Where the record starts in its segment. */
  readonly offset: number;
  readonly size: number;
  /** The last eight bytes of the record: they tie an entry of an index to the record it was made for. */
  readonly fileChecksum: Checksum;
}

/** Where a record stands and how it ends: what an entry holds beside the record's header. */
export interface RecordPlace {
  readonly segment: string;
  readonly offset: number;
  readonly size: number;
  readonly postApplyChecksum: Checksum;
  readonly fileChecksum: Checksum;
}

/** Bytes at the end of a record: post-apply checksum and file checksum. */
export const RECORD_TRAILER_SIZE = 16;

/** A record without pages: header, end of the pages, an index of one byte and its size, trailer. */
export const RECORD_SIZE_MIN = LTX_HEADER_SIZE + 6 + 1 + 8 + RECORD_TRAILER_SIZE;

/** The entry of a record with this header. Throws `LOG_BAD_RECORD` for records that our logs never hold. */
export function makeLogEntry(header: LtxHeader, place: RecordPlace): LogEntry {
  if (header.noChecksum) {
    throw new LogError(
      'LOG_BAD_RECORD',
      `Cannot log transaction ${header.minTxid}: it carries no checksums`,
      {
        minTxid: header.minTxid,
      },
    );
  }
  return {
    minTxid: header.minTxid,
    maxTxid: header.maxTxid,
    term: header.nodeId,
    commit: header.commit,
    pageSize: header.pageSize,
    preApplyChecksum: (header.minTxid === 1n ? CHECKSUM_FLAG : header.preApplyChecksum) as Checksum,
    postApplyChecksum: place.postApplyChecksum,
    timestampMs: header.timestampMs,
    walOffset: header.walOffset,
    walSize: header.walSize,
    walSalt1: header.walSalt1,
    walSalt2: header.walSalt2,
    segment: place.segment,
    offset: place.offset,
    size: place.size,
    fileChecksum: place.fileChecksum,
  };
}

/** The two checksums at a record's end. Throws `LOG_BAD_RECORD` when a flag bit is missing. */
export function decodeRecordTrailer(
  bytes: Uint8Array,
): Pick<RecordPlace, 'postApplyChecksum' | 'fileChecksum'> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const postApplyChecksum = view.getBigUint64(bytes.length - RECORD_TRAILER_SIZE);
  const fileChecksum = view.getBigUint64(bytes.length - RECORD_TRAILER_SIZE / 2);
  if (!isChecksum(postApplyChecksum) || !isChecksum(fileChecksum)) {
    throw new LogError('LOG_BAD_RECORD', 'Cannot read record trailer: a checksum lacks its flag', {
      postApplyChecksum,
      fileChecksum,
    });
  }
  return {postApplyChecksum, fileChecksum};
}

// Entry of an index file, big-endian:
//   0 the record's LTX header, 100 bytes | 100 offset u64 | 108 size u64 | 116 postApplyChecksum u64
// 124 fileChecksum u64 | 132 crc32 u32 of the 132 bytes before it
export const INDEX_ENTRY_SIZE = 136;
const CRC_OFFSET = 132;

/** Writes `entry` as the 136 bytes of `target`. */
export function encodeIndexEntry(entry: LogEntry, target: Uint8Array): Uint8Array {
  const header: LtxHeader = {
    pageSize: entry.pageSize,
    commit: entry.commit,
    minTxid: entry.minTxid,
    maxTxid: entry.maxTxid,
    timestampMs: entry.timestampMs,
    preApplyChecksum: entry.minTxid === 1n ? 0n : entry.preApplyChecksum,
    walOffset: entry.walOffset,
    walSize: entry.walSize,
    walSalt1: entry.walSalt1,
    walSalt2: entry.walSalt2,
    nodeId: entry.term,
    noChecksum: false,
  };
  encodeLtxHeader(header, target);
  const view = new DataView(target.buffer, target.byteOffset, INDEX_ENTRY_SIZE);
  setUint53(view, LTX_HEADER_SIZE, entry.offset);
  setUint53(view, LTX_HEADER_SIZE + 8, entry.size);
  view.setBigUint64(LTX_HEADER_SIZE + 16, entry.postApplyChecksum);
  view.setBigUint64(LTX_HEADER_SIZE + 24, entry.fileChecksum);
  view.setUint32(CRC_OFFSET, crc32(target.subarray(0, CRC_OFFSET)));
  return target;
}

/**
 * Reads an entry of the index of `segment`; `undefined` when the bytes are none. Index files are derived, so a bad
 * entry is no error: whoever reads it makes the index anew from the segment.
 */
export function decodeIndexEntry(bytes: Uint8Array, segment: string): LogEntry | undefined {
  if (bytes.length !== INDEX_ENTRY_SIZE) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, INDEX_ENTRY_SIZE);
  if (view.getUint32(CRC_OFFSET) !== crc32(bytes.subarray(0, CRC_OFFSET))) return undefined;
  const offset = getUint53(view, LTX_HEADER_SIZE);
  const size = getUint53(view, LTX_HEADER_SIZE + 8);
  if (size < RECORD_SIZE_MIN || !Number.isSafeInteger(offset + size)) return undefined;
  try {
    const trailer = decodeRecordTrailer(bytes.subarray(LTX_HEADER_SIZE + 16, CRC_OFFSET));
    return makeLogEntry(decodeLtxHeader(bytes), {segment, offset, size, ...trailer});
  } catch (error) {
    if (error instanceof LtxError || error instanceof LogError) return undefined;
    throw error;
  }
}

function setUint53(view: DataView, at: number, n: number): void {
  view.setUint32(at, Math.floor(n / 0x1_0000_0000));
  view.setUint32(at + 4, n >>> 0);
}

function getUint53(view: DataView, at: number): number {
  return view.getUint32(at) * 0x1_0000_0000 + view.getUint32(at + 4);
}
