import {assert} from '../lib/assert.ts';
import {readU32be, writeU32be} from '../lib/bytes.ts';
import {SqliteFormatError} from './error.ts';
import {isPageSize} from './page-size.ts';

/** Size of the header at the start of a WAL, in bytes. */
export const WAL_HEADER_SIZE = 32;
/** Size of the header before each page in a WAL, in bytes. */
export const WAL_FRAME_HEADER_SIZE = 24;
/** First four bytes of a WAL; with its lowest bit set, checksums are over big-endian words. */
export const WAL_MAGIC = 0x377f_0682;
/** The one version of the format there has been. */
export const WAL_MAX_VERSION = 3_007_000;

/** Whether this machine puts the most significant byte first. */
export const HOST_IS_BIG_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 0;

/**
 * What identifies one generation of a WAL (4.1 WAL File Format). Salts are the numbers whose big-endian
 * bytes are in the file.
 */
export interface WalHeader {
  /** Whether checksums take the bytes as big-endian words. Files made on x86 and ARM say no. */
  readonly bigEndCksum: boolean;
  /** In bytes. */
  readonly pageSize: number;
  /** Checkpoint sequence number: grows by one at each restart. */
  readonly nCkpt: number;
  readonly salt1: number;
  readonly salt2: number;
}

/** A `WalHeader` as found in a file, with the checksum from which those of its frames go on. */
export interface StoredWalHeader extends WalHeader {
  readonly checksum1: number;
  readonly checksum2: number;
}

/** The header of one frame, as found in a file; nothing says yet that its checksum is right. */
export interface WalFrameHeader {
  readonly pgno: number;
  /** Database size in pages after the transaction that this frame ends; 0 in its other frames. */
  readonly commit: number;
  readonly salt1: number;
  readonly salt2: number;
  readonly checksum1: number;
  readonly checksum2: number;
}

/** What goes into a frame, beside the checksum. */
export interface WalFrame {
  readonly pgno: number;
  readonly commit: number;
  readonly salt1: number;
  readonly salt2: number;
  readonly page: Uint8Array;
}

/** Offset in the WAL of the frame with the 0-based `index` (SQLite's frame number less one), in bytes. */
export function frameOffset(index: number, pageSize: number): number {
  return WAL_HEADER_SIZE + index * (WAL_FRAME_HEADER_SIZE + pageSize);
}

/** Number of whole frames for which a WAL of `walSize` bytes has room, valid or not. */
export function frameCount(walSize: number, pageSize: number): number {
  if (walSize <= WAL_HEADER_SIZE) return 0;
  return Math.floor((walSize - WAL_HEADER_SIZE) / (WAL_FRAME_HEADER_SIZE + pageSize));
}

/**
 * Goes on with the checksum in `running` over `bytes` from `start` to `end`, a multiple of 8 bytes, and
 * leaves the result there (4.2 Checksum Algorithm). Allocates nothing beyond one view, and none for short
 * ranges; fast where the words are in the host's order and 4-aligned in memory, three times slower elsewhere.
 */
export function walChecksum(
  bytes: Uint8Array,
  start: number,
  end: number,
  running: Uint32Array,
  bigEndianWords: boolean,
): void {
  const size = end - start;
  assert(
    size % 8 === 0 && start >= 0 && size >= 0 && end <= bytes.length,
    'a checksum covers pairs of words',
  );
  const from = bytes.byteOffset + start;
  if (bigEndianWords === HOST_IS_BIG_ENDIAN && size % 32 === 0 && (from & 3) === 0) {
    checksumWords(new Int32Array(bytes.buffer, from, size >> 2), running);
  } else if (bigEndianWords) {
    checksumBigEndian(bytes, start, end, running);
  } else {
    checksumLittleEndian(bytes, start, end, running);
  }
}

function checksumWords(words: Int32Array, running: Uint32Array): void {
  let s1 = running[0] | 0;
  let s2 = running[1] | 0;
  // Four pairs a turn: in one run 15 % faster than one.
  for (let i = 0; i < words.length; i += 8) {
    s1 = (s1 + words[i] + s2) | 0;
    s2 = (s2 + words[i + 1] + s1) | 0;
    s1 = (s1 + words[i + 2] + s2) | 0;
    s2 = (s2 + words[i + 3] + s1) | 0;
    s1 = (s1 + words[i + 4] + s2) | 0;
    s2 = (s2 + words[i + 5] + s1) | 0;
    s1 = (s1 + words[i + 6] + s2) | 0;
    s2 = (s2 + words[i + 7] + s1) | 0;
  }
  running[0] = s1;
  running[1] = s2;
}

function checksumLittleEndian(b: Uint8Array, start: number, end: number, running: Uint32Array): void {
  let s1 = running[0] | 0;
  let s2 = running[1] | 0;
  for (let i = start; i < end; i += 8) {
    s1 = (s1 + (b[i] | (b[i + 1] << 8) | (b[i + 2] << 16) | (b[i + 3] << 24)) + s2) | 0;
    s2 = (s2 + (b[i + 4] | (b[i + 5] << 8) | (b[i + 6] << 16) | (b[i + 7] << 24)) + s1) | 0;
  }
  running[0] = s1;
  running[1] = s2;
}

function checksumBigEndian(b: Uint8Array, start: number, end: number, running: Uint32Array): void {
  let s1 = running[0] | 0;
  let s2 = running[1] | 0;
  for (let i = start; i < end; i += 8) {
    s1 = (s1 + ((b[i] << 24) | (b[i + 1] << 16) | (b[i + 2] << 8) | b[i + 3]) + s2) | 0;
    s2 = (s2 + ((b[i + 4] << 24) | (b[i + 5] << 16) | (b[i + 6] << 8) | b[i + 7]) + s1) | 0;
  }
  running[0] = s1;
  running[1] = s2;
}

// WAL header, big-endian (4.1 WAL File Format):
//   0 magic u32 | 4 version u32 | 8 page size u32 | 12 nCkpt u32 | 16 salt u32x2 | 24 checksum u32x2

/**
 * Writes the 32 bytes of `header` at `at` and sets `running` to its checksum, where the first frame's begins.
 */
export function encodeWalHeader(
  target: Uint8Array,
  at: number,
  header: WalHeader,
  running: Uint32Array,
): void {
  assert(isPageSize(header.pageSize), `${header.pageSize} is a page size`);
  assert(at >= 0 && at + WAL_HEADER_SIZE <= target.length, 'the header fits into the target');
  writeU32be(target, at, header.bigEndCksum ? WAL_MAGIC + 1 : WAL_MAGIC);
  writeU32be(target, at + 4, WAL_MAX_VERSION);
  writeU32be(target, at + 8, header.pageSize);
  writeU32be(target, at + 12, header.nCkpt);
  writeU32be(target, at + 16, header.salt1);
  writeU32be(target, at + 20, header.salt2);
  running[0] = 0;
  running[1] = 0;
  walChecksum(target, at, at + 24, running, header.bigEndCksum);
  writeU32be(target, at + 24, running[0]);
  writeU32be(target, at + 28, running[1]);
}

/**
 * Reads the header at the start of `bytes`. SQLite takes a WAL for empty when this throws `WAL_TRUNCATED`,
 * `WAL_BAD_MAGIC`, `WAL_BAD_PAGE_SIZE` or `WAL_BAD_CHECKSUM`, and refuses the database at `WAL_BAD_VERSION`.
 */
export function decodeWalHeader(bytes: Uint8Array): StoredWalHeader {
  if (bytes.length < WAL_HEADER_SIZE) {
    throw new SqliteFormatError('WAL_TRUNCATED', `Cannot read WAL header: ${bytes.length} bytes`);
  }
  const magic = readU32be(bytes, 0);
  if (magic !== WAL_MAGIC && magic !== WAL_MAGIC + 1) {
    throw new SqliteFormatError('WAL_BAD_MAGIC', `Cannot read WAL header: begins with ${hex(magic)}`, {
      magic,
    });
  }
  const pageSize = readU32be(bytes, 8);
  if (!isPageSize(pageSize)) {
    throw new SqliteFormatError('WAL_BAD_PAGE_SIZE', `Cannot read WAL header: page size ${pageSize}`, {
      pageSize,
    });
  }
  const bigEndCksum = magic !== WAL_MAGIC;
  const running = new Uint32Array(2);
  walChecksum(bytes, 0, 24, running, bigEndCksum);
  const checksum1 = readU32be(bytes, 24);
  const checksum2 = readU32be(bytes, 28);
  if (checksum1 !== running[0] || checksum2 !== running[1]) {
    throw new SqliteFormatError('WAL_BAD_CHECKSUM', 'Cannot read WAL header: its checksum is wrong', {
      stored: [checksum1, checksum2],
      computed: [...running],
    });
  }
  const version = readU32be(bytes, 4);
  if (version !== WAL_MAX_VERSION) {
    throw new SqliteFormatError('WAL_BAD_VERSION', `Cannot read WAL header: version ${version}`, {version});
  }
  const nCkpt = readU32be(bytes, 12);
  const salt1 = readU32be(bytes, 16);
  const salt2 = readU32be(bytes, 20);
  return {bigEndCksum, pageSize, nCkpt, salt1, salt2, checksum1, checksum2};
}

// WAL frame header, big-endian (4.1 WAL File Format):
//   0 pgno u32 | 4 commit u32 | 8 salt u32x2 | 16 checksum u32x2

/**
 * Writes a frame, header and page, at `at` and moves `running` past it. The checksum covers the first 8 bytes
 * of the header and the page, not the salts: those are in it through the WAL's header. Returns the frame's
 * size in bytes.
 */
export function encodeWalFrame(
  target: Uint8Array,
  at: number,
  frame: WalFrame,
  running: Uint32Array,
  bigEndianWords = false,
): number {
  const size = WAL_FRAME_HEADER_SIZE + frame.page.length;
  assert(frame.pgno > 0, 'page numbers begin at 1');
  assert(isPageSize(frame.page.length), `${frame.page.length} is a page size`);
  assert(at >= 0 && at + size <= target.length, 'the frame fits into the target');
  writeU32be(target, at, frame.pgno);
  writeU32be(target, at + 4, frame.commit);
  writeU32be(target, at + 8, frame.salt1);
  writeU32be(target, at + 12, frame.salt2);
  target.set(frame.page, at + WAL_FRAME_HEADER_SIZE);
  walChecksum(target, at, at + 8, running, bigEndianWords);
  walChecksum(target, at + WAL_FRAME_HEADER_SIZE, at + size, running, bigEndianWords);
  writeU32be(target, at + 16, running[0]);
  writeU32be(target, at + 20, running[1]);
  return size;
}

/**
 * Reads the frame header at `at`, without its checksum's check (see `verifyWalFrame`). Throws
 * `WAL_TRUNCATED`, and `WAL_BAD_PGNO` for page 0, which is no page: zeros after a WAL's end look like that.
 */
export function decodeWalFrameHeader(bytes: Uint8Array, at = 0): WalFrameHeader {
  if (at < 0 || at + WAL_FRAME_HEADER_SIZE > bytes.length) {
    throw new SqliteFormatError('WAL_TRUNCATED', `Cannot read frame header: ${bytes.length - at} bytes`);
  }
  const pgno = readU32be(bytes, at);
  if (pgno === 0) throw new SqliteFormatError('WAL_BAD_PGNO', 'Cannot read frame header: page number 0');
  return {
    pgno,
    commit: readU32be(bytes, at + 4),
    salt1: readU32be(bytes, at + 8),
    salt2: readU32be(bytes, at + 12),
    checksum1: readU32be(bytes, at + 16),
    checksum2: readU32be(bytes, at + 20),
  };
}

/**
 * Says whether the bytes at `at` are a frame of the generation that `header` begins and follow the frame that
 * `running` is the checksum of (4.1 WAL File Format: salts, then checksum). If so `running` has moved past
 * it, otherwise it is as before, so the same place can be tried again later.
 */
export function verifyWalFrame(
  bytes: Uint8Array,
  at: number,
  header: WalHeader,
  running: Uint32Array,
): boolean {
  const end = at + WAL_FRAME_HEADER_SIZE + header.pageSize;
  if (end > bytes.length) return false;
  if (readU32be(bytes, at + 8) !== header.salt1) return false;
  if (readU32be(bytes, at + 12) !== header.salt2) return false;
  if (readU32be(bytes, at) === 0) return false;
  const before1 = running[0];
  const before2 = running[1];
  walChecksum(bytes, at, at + 8, running, header.bigEndCksum);
  walChecksum(bytes, at + WAL_FRAME_HEADER_SIZE, end, running, header.bigEndCksum);
  if (readU32be(bytes, at + 16) === running[0] && readU32be(bytes, at + 20) === running[1]) return true;
  running[0] = before1;
  running[1] = before2;
  return false;
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
