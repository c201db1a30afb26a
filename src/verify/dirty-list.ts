import {PageRanges} from './page-ranges.ts';

/** The pages of a database file that were written since the last commit, as the daemon that ended had noted them. */
export interface DirtyList {
  /** Last transaction of the log whose commit may not have happened; 0 if none. */
  readonly pendingTxid: bigint;
  /** Any page may have been written. */
  readonly isUnknown: boolean;
  readonly pages: PageRanges;
}

// As `DirtyPages` writes it, little-endian:  0 generation u32 | 4 reserved u32 | 8 pending txid u64 | then records of
// 12 bytes: generation u32 | first page u32, 0 for unknown | page count u32; an older generation is void
const HEADER_SIZE = 16;
const RECORD_SIZE = 12;
const RANGES_MAX = 1 << 20;

/** Reads the list in `bytes`; none, or a header cut short, is an empty list. */
export function decodeDirtyList(bytes: Buffer | undefined): DirtyList {
  const pages = new PageRanges(RANGES_MAX);
  if (bytes === undefined || bytes.length < HEADER_SIZE) return {pendingTxid: 0n, isUnknown: false, pages};
  const generation = bytes.readUInt32LE(0);
  // A full list may lack what came after.
  let isUnknown =
    bytes.length >= HEADER_SIZE + RANGES_MAX * RECORD_SIZE &&
    bytes.readUInt32LE(HEADER_SIZE + (RANGES_MAX - 1) * RECORD_SIZE) === generation;
  for (let at = HEADER_SIZE; at + RECORD_SIZE <= bytes.length; at += RECORD_SIZE) {
    if (bytes.readUInt32LE(at) !== generation) break;
    const first = bytes.readUInt32LE(at + 4);
    if (first === 0) isUnknown = true;
    else pages.add(first, bytes.readUInt32LE(at + 8));
  }
  return {pendingTxid: bytes.readBigUInt64LE(8), isUnknown, pages};
}
