import {crc32} from 'node:zlib';
import {isChecksum, type Position, type Txid} from '../ltx/position.ts';

/** The header has a disk sector of its own: it is written whole or not at all. */
export const CHECKSUM_HEADER_SIZE = 4096;

/** What the entries of the file stand for. */
export interface ChecksumHeader {
  readonly pageSize: number;
  readonly pageCount: number;
  readonly position: Position;
  /** Epoch of the primary that wrote the transaction at `position`. */
  readonly term: bigint;
}

// Header, big-endian, the rest of the sector zero:
//   0 magic "FRPGSUM1" | 8 pageSize u32 | 12 pageCount u32 | 16 txid u64 | 24 checksum u64 | 32 term u64
//  40 crc32 u32 of the 40 bytes before it
const MAGIC = 0x4652_5047_5355_4d31n;
const CRC_OFFSET = 40;

/** The header's sector. */
export function encodeChecksumHeader(header: ChecksumHeader): Uint8Array {
  const bytes = new Uint8Array(CHECKSUM_HEADER_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC);
  view.setUint32(8, header.pageSize);
  view.setUint32(12, header.pageCount);
  view.setBigUint64(16, header.position.txid);
  view.setBigUint64(24, header.position.checksum);
  view.setBigUint64(32, header.term);
  view.setUint32(CRC_OFFSET, crc32(bytes.subarray(0, CRC_OFFSET)));
  return bytes;
}

/** The header in `bytes`; `undefined` when there is none, which means that the table must be made anew. */
export function decodeChecksumHeader(bytes: Uint8Array): ChecksumHeader | undefined {
  if (bytes.length !== CHECKSUM_HEADER_SIZE) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, CHECKSUM_HEADER_SIZE);
  if (view.getBigUint64(0) !== MAGIC) return undefined;
  if (view.getUint32(CRC_OFFSET) !== crc32(bytes.subarray(0, CRC_OFFSET))) return undefined;
  const checksum = view.getBigUint64(24);
  if (!isChecksum(checksum)) return undefined;
  return {
    pageSize: view.getUint32(8),
    pageCount: view.getUint32(12),
    position: {txid: view.getBigUint64(16) as Txid, checksum},
    term: view.getBigUint64(32),
  };
}
