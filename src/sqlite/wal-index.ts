import {assert} from '../lib/assert.ts';
import {readU32be, writeU32be} from '../lib/bytes.ts';
import {SqliteFormatError} from './error.ts';
import {WAL_NREADER} from './lock-bytes.ts';
import {isPageSize, packPageSize, unpackPageSize} from './page-size.ts';
import {HOST_IS_BIG_ENDIAN, walChecksum} from './wal.ts';

// The wal-index is the `-shm` file (WAL-mode File Format, "The WAL-Index File Format"), in the byte order of
// the host, because the processes of one host map it and share it. In segments of 32 KiB:
//
//   segment 0:   136 bytes of header | 4062 page numbers u32 | 8192 hash slots u16
//   later ones:                        4096 page numbers u32 | 8192 hash slots u16
//
// The header:
//   0 header, first copy | 48 header, second copy | 96 nBackfill u32 | 100 read marks u32x5
//   120 eight lock bytes, never read or written | 128 nBackfillAttempted u32 | 132 unused u32

/** The one version of the format there has been. */
export const WALINDEX_MAX_VERSION = 3_007_000;
/** Size of one copy of the header, in bytes. */
export const WAL_INDEX_HEADER_SIZE = 48;
const HEADER_WORDS = WAL_INDEX_HEADER_SIZE / 4;
/** Offset of the checkpoint information, in bytes. */
export const WAL_CKPT_INFO_OFFSET = 96;
/** Size of both copies of the header and the checkpoint information, in bytes. */
export const WALINDEX_HDR_SIZE = 136;
/** Size of a segment, in bytes: the `-shm` file grows by whole ones. */
export const WALINDEX_PGSZ = 32_768;
/** Number of frames that a segment indexes. */
export const HASHTABLE_NPAGE = 4096;
/** Number of frames that segment 0 indexes: the header takes the room of 34. */
export const HASHTABLE_NPAGE_ONE = HASHTABLE_NPAGE - WALINDEX_HDR_SIZE / 4;
/** Factor of the hash function. */
export const HASHTABLE_HASH_1 = 383;
/** Number of hash slots in a segment. */
export const HASHTABLE_NSLOT = 2 * HASHTABLE_NPAGE;
/** A read mark that no reader uses. */
export const READMARK_NOT_USED = 0xffff_ffff;

/**
 * The published state of a WAL: what a read transaction takes as its snapshot (WAL-mode File Format, "The
 * WAL-Index Header").
 */
export interface WalIndexHeader {
  /** Grows by one with each transaction. */
  readonly iChange: number;
  readonly bigEndCksum: boolean;
  /** In bytes. */
  readonly pageSize: number;
  /** Number of the last committed frame; 0 when there is none. */
  readonly mxFrame: number;
  /** Database size after that frame, in pages. */
  readonly nPage: number;
  /** Running checksum at that frame. */
  readonly frameChecksum1: number;
  readonly frameChecksum2: number;
  /** As in `WalHeader`: the numbers whose big-endian bytes are in both files. */
  readonly salt1: number;
  readonly salt2: number;
}

// One copy of the header, in the host's order unless it says otherwise:
//   0 version u32 | 4 unused u32 | 8 iChange u32 | 12 isInit u8 | 13 bigEndCksum u8 | 14 page size u16
//   16 mxFrame u32 | 20 nPage u32 | 24 frame checksum u32x2 | 32 salt u32x2, big-endian | 40 checksum u32x2

/**
 * Writes one copy of the header, 48 bytes, to the start of `target`. See `writeWalIndexHeader` for publishing
 * it.
 */
export function encodeWalIndexHeader(target: Uint8Array, header: WalIndexHeader): void {
  assert(target.length >= WAL_INDEX_HEADER_SIZE, 'the header fits into the target');
  target.set(new Uint8Array(packHeader(header).buffer), 0);
}

/**
 * Reads one copy of the header from the start of `bytes`. Throws `WAL_INDEX_TRUNCATED`,
 * `WAL_INDEX_BAD_CHECKSUM` (also for one that nobody has initialised: SQLite rebuilds the wal-index in both
 * cases), `WAL_INDEX_BAD_VERSION` (SQLite refuses the database) and `WAL_INDEX_BAD_PAGE_SIZE`.
 */
export function decodeWalIndexHeader(bytes: Uint8Array): WalIndexHeader {
  if (bytes.length < WAL_INDEX_HEADER_SIZE) {
    throw new SqliteFormatError('WAL_INDEX_TRUNCATED', `Cannot read wal-index header: ${bytes.length} bytes`);
  }
  // A copy: other processes may write to the mapped bytes at any time.
  const copy = new Uint8Array(WAL_INDEX_HEADER_SIZE);
  copy.set(bytes.subarray(0, WAL_INDEX_HEADER_SIZE));
  const words = new Uint32Array(copy.buffer);
  const running = new Uint32Array(2);
  walChecksum(copy, 0, 40, running, HOST_IS_BIG_ENDIAN);
  if (copy[12] === 0 || words[10] !== running[0] || words[11] !== running[1]) {
    throw new SqliteFormatError(
      'WAL_INDEX_BAD_CHECKSUM',
      copy[12] === 0
        ? 'Cannot read wal-index header: it is not initialised'
        : 'Cannot read wal-index header: its checksum is wrong',
      {isInit: copy[12], stored: [words[10], words[11]], computed: [...running]},
    );
  }
  if (words[0] !== WALINDEX_MAX_VERSION) {
    throw new SqliteFormatError('WAL_INDEX_BAD_VERSION', `Cannot read wal-index header: version ${words[0]}`);
  }
  const header = unpackHeader(copy, words);
  // Before the first frame of a recovered, empty WAL the page size is not known and 0.
  if (!isPageSize(header.pageSize) && !(header.pageSize === 0 && header.mxFrame === 0)) {
    throw new SqliteFormatError(
      'WAL_INDEX_BAD_PAGE_SIZE',
      `Cannot read wal-index header: page size ${header.pageSize}`,
    );
  }
  return header;
}

/**
 * Publishes `header` in segment 0: the second copy first, then the first, as readers take them the other way
 * round and trust what they read only if both are the same. The frames and their `WalIndexTable` entries must
 * be in place before. `segment` is 4-aligned in memory. Every store is ordered after all stores before it, on
 * every processor.
 */
export function writeWalIndexHeader(segment: Uint8Array, header: WalIndexHeader): void {
  const shared = headerWords(segment);
  const words = packHeader(header);
  for (let i = 0; i < HEADER_WORDS; i++) Atomics.store(shared, HEADER_WORDS + i, words[i]);
  for (let i = 0; i < HEADER_WORDS; i++) Atomics.store(shared, i, words[i]);
}

/**
 * Reads the published header from segment 0 as SQLite's readers do. `undefined` if both copies differ, i.e. a
 * writer is at it or died: try again, and hold the write lock to tell the two apart. Otherwise throws as
 * `decodeWalIndexHeader` does. `segment` is 4-aligned in memory.
 */
export function readWalIndexHeader(segment: Uint8Array): WalIndexHeader | undefined {
  const shared = headerWords(segment);
  const words = new Uint32Array(HEADER_WORDS);
  for (let i = 0; i < HEADER_WORDS; i++) words[i] = Atomics.load(shared, i);
  for (let i = 0; i < HEADER_WORDS; i++) {
    if (Atomics.load(shared, HEADER_WORDS + i) !== words[i]) return undefined;
  }
  return decodeWalIndexHeader(new Uint8Array(words.buffer));
}

function headerWords(segment: Uint8Array): Uint32Array {
  assert(segment.length >= WALINDEX_HDR_SIZE, 'segment 0 holds both copies');
  return new Uint32Array(segment.buffer, segment.byteOffset, 2 * HEADER_WORDS);
}

function packHeader(header: WalIndexHeader): Uint32Array<ArrayBuffer> {
  // The header of a WAL without a committed frame says page size 0, if SQLite's recovery wrote it.
  assert(isPageSize(header.pageSize) || header.mxFrame === 0, `${header.pageSize} is a page size`);
  const words = new Uint32Array(HEADER_WORDS);
  const bytes = new Uint8Array(words.buffer);
  const bigEndCksum = header.bigEndCksum ? 1 : 0;
  const pageSize = packPageSize(header.pageSize);
  words[0] = WALINDEX_MAX_VERSION;
  words[2] = header.iChange;
  words[3] = HOST_IS_BIG_ENDIAN
    ? 0x0100_0000 | (bigEndCksum << 16) | pageSize
    : 1 | (bigEndCksum << 8) | (pageSize << 16);
  words[4] = header.mxFrame;
  words[5] = header.nPage;
  words[6] = header.frameChecksum1;
  words[7] = header.frameChecksum2;
  writeU32be(bytes, 32, header.salt1);
  writeU32be(bytes, 36, header.salt2);
  walChecksum(bytes, 0, 40, words.subarray(10), HOST_IS_BIG_ENDIAN);
  return words;
}

function unpackHeader(bytes: Uint8Array, words: Uint32Array): WalIndexHeader {
  return {
    iChange: words[2],
    bigEndCksum: bytes[13] !== 0,
    pageSize: unpackPageSize(new Uint16Array(bytes.buffer)[7]),
    mxFrame: words[4],
    nPage: words[5],
    frameChecksum1: words[6],
    frameChecksum2: words[7],
    salt1: readU32be(bytes, 32),
    salt2: readU32be(bytes, 36),
  };
}

/**
 * The checkpoint information in segment 0, shared with other processes: each access is one atomic load or
 * store.
 */
export class WalCkptInfo {
  readonly #words: Uint32Array;

  /** `segment` is segment 0 and must be 4-aligned in memory; a new mapping needs a new object. */
  constructor(segment: Uint8Array) {
    assert(segment.length >= WALINDEX_HDR_SIZE, 'segment 0 holds the checkpoint information');
    this.#words = new Uint32Array(segment.buffer, segment.byteOffset + WAL_CKPT_INFO_OFFSET, 10);
  }

  /** Number of frames that are in the database file and need not be copied again. */
  get nBackfill(): number {
    return Atomics.load(this.#words, 0);
  }

  set nBackfill(value: number) {
    Atomics.store(this.#words, 0, value);
  }

  /** Number of frames that a checkpoint may have begun to copy. At least `nBackfill`. */
  get nBackfillAttempted(): number {
    return Atomics.load(this.#words, 8);
  }

  set nBackfillAttempted(value: number) {
    Atomics.store(this.#words, 8, value);
  }

  /** Read mark `index`, 0 to 4: readers that hold its lock use no frame above it. */
  readMark(index: number): number {
    return Atomics.load(this.#words, markAt(index));
  }

  /** Sets read mark `index`; the caller holds `WAL_READ_LOCK(index)` exclusively. */
  setReadMark(index: number, value: number): void {
    Atomics.store(this.#words, markAt(index), value);
  }
}

function markAt(index: number): number {
  assert(Number.isInteger(index) && index >= 0 && index < WAL_NREADER, 'there are five read marks');
  return 1 + index;
}

/**
 * Number of the segment, from 0, that indexes `frame`, from 1. For frame 0: segment 0, which has the header.
 */
export function walIndexSegmentOf(frame: number): number {
  return Math.floor((frame + HASHTABLE_NPAGE - HASHTABLE_NPAGE_ONE - 1) / HASHTABLE_NPAGE);
}

/** Number of the frame before the first that segment `iSegment` indexes. */
function zeroOf(iSegment: number): number {
  return iSegment === 0 ? 0 : HASHTABLE_NPAGE_ONE + (iSegment - 1) * HASHTABLE_NPAGE;
}

/** Bytes of `-shm` that an index of `frameCount` frames needs. */
export function walIndexSizeFor(frameCount: number): number {
  return (walIndexSegmentOf(frameCount) + 1) * WALINDEX_PGSZ;
}

interface Segment {
  readonly bytes: Uint8Array;
  /** Page number of each frame that the segment indexes. */
  readonly pgnos: Uint32Array;
  /** 0 for free, else a frame's place in `pgnos` plus one. */
  readonly slots: Uint16Array;
}

/**
 * Where in the WAL each page is: hash tables in memory shared with other processes (WAL-mode File Format,
 * "WAL-Index Hash Blocks"). One writer, who holds the write lock, calls `append` and `cleanup`; readers need
 * no lock, because entries above their own `mxFrame` are to them as if they weren't there.
 */
export class WalIndexTable {
  readonly #getSegment: (iSegment: number) => Uint8Array;
  readonly #segments: Segment[] = [];

  /**
   * `getSegment` returns segment `iSegment`, 32,768 bytes, 4-aligned in memory, and makes it if it isn't
   * there. The same object for the same mapping, please: the table keeps views of it for as long as it gets
   * the same one.
   */
  constructor(getSegment: (iSegment: number) => Uint8Array) {
    this.#getSegment = getSegment;
  }

  /** Bytes of `-shm` that an index of `frameCount` frames needs. */
  static sizeFor(frameCount: number): number {
    return walIndexSizeFor(frameCount);
  }

  /**
   * Enters that `frame` holds page `pgno`. Frames come in order. The first of a segment clears the segment;
   * where a writer that died has left an entry, everything from `frame` on is removed first. Throws
   * `WAL_INDEX_CORRUPT` when the table has more entries than frames.
   */
  append(frame: number, pgno: number): void {
    assert(frame > 0 && pgno > 0, 'frames and pages are numbered from 1');
    const iSegment = walIndexSegmentOf(frame);
    const segment = this.#segment(iSegment);
    const entry = frame - zeroOf(iSegment);
    if (entry === 1) {
      segment.pgnos.fill(0);
      segment.slots.fill(0);
    }
    if (segment.pgnos[entry - 1] !== 0) this.cleanup(frame - 1);
    let slot = hashOf(pgno);
    for (let collisions = entry; segment.slots[slot] !== 0; collisions--) {
      if (collisions === 0) throw corrupt('append to', frame, pgno);
      slot = (slot + 1) & (HASHTABLE_NSLOT - 1);
    }
    segment.pgnos[entry - 1] = pgno;
    // Readers that come upon the slot must find the page number there already.
    Atomics.store(segment.slots, slot, entry);
  }

  /**
   * Number of the last frame from `minFrame` to `mxFrame` that holds page `pgno`; 0 if there is none and the
   * page is to be read from the database file. Throws `WAL_INDEX_CORRUPT` when a hash table has no free slot.
   */
  find(pgno: number, mxFrame: number, minFrame = 1): number {
    assert(pgno > 0, 'pages are numbered from 1');
    if (mxFrame === 0 || minFrame > mxFrame) return 0;
    const iSegmentMin = walIndexSegmentOf(Math.max(minFrame, 1));
    for (let iSegment = walIndexSegmentOf(mxFrame); iSegment >= iSegmentMin; iSegment--) {
      const zero = zeroOf(iSegment);
      const entry = this.#findEntry(iSegment, pgno, minFrame - zero, mxFrame - zero);
      if (entry !== 0) return zero + entry;
    }
    return 0;
  }

  /** Page that `frame` holds; what a dead writer left there, or 0, if the frame is not committed. */
  pgnoOf(frame: number): number {
    assert(frame > 0, 'frames are numbered from 1');
    const iSegment = walIndexSegmentOf(frame);
    return this.#segment(iSegment).pgnos[frame - zeroOf(iSegment) - 1];
  }

  /**
   * Removes the entries of frames above `mxFrame` from the segment of `mxFrame`, after a rollback. Those of
   * later segments go when `append` gets there. For 0 there is nothing to do, for the same reason.
   */
  cleanup(mxFrame: number): void {
    if (mxFrame === 0) return;
    const iSegment = walIndexSegmentOf(mxFrame);
    const {pgnos, slots} = this.#segment(iSegment);
    const limit = mxFrame - zeroOf(iSegment);
    for (let i = 0; i < slots.length; i++) if (slots[i] > limit) slots[i] = 0;
    pgnos.fill(0, limit);
  }

  #findEntry(iSegment: number, pgno: number, entryMin: number, entryMax: number): number {
    const {pgnos, slots} = this.#segment(iSegment);
    let found = 0;
    let slot = hashOf(pgno);
    for (let collisions = HASHTABLE_NSLOT; ; collisions--) {
      const entry = Atomics.load(slots, slot);
      if (entry === 0) return found;
      // The bounds come first: slots of frames that this reader doesn't know may hold anything.
      if (entry <= entryMax && entry >= entryMin && pgnos[entry - 1] === pgno) found = entry;
      if (collisions === 0) throw corrupt('search', zeroOf(iSegment) + entry, pgno);
      slot = (slot + 1) & (HASHTABLE_NSLOT - 1);
    }
  }

  #segment(iSegment: number): Segment {
    const bytes = this.#getSegment(iSegment);
    const known = this.#segments[iSegment];
    if (known !== undefined && known.bytes === bytes) return known;
    assert(bytes.length === WALINDEX_PGSZ, 'a segment has 32 KiB');
    const headerSize = iSegment === 0 ? WALINDEX_HDR_SIZE : 0;
    const pgnosSize = 4 * HASHTABLE_NPAGE - headerSize;
    const start = bytes.byteOffset + headerSize;
    const segment = {
      bytes,
      pgnos: new Uint32Array(bytes.buffer, start, pgnosSize / 4),
      slots: new Uint16Array(bytes.buffer, start + pgnosSize, HASHTABLE_NSLOT),
    };
    this.#segments[iSegment] = segment;
    return segment;
  }
}

function hashOf(pgno: number): number {
  return Math.imul(pgno, HASHTABLE_HASH_1) & (HASHTABLE_NSLOT - 1);
}

function corrupt(verb: string, frame: number, pgno: number): SqliteFormatError {
  return new SqliteFormatError('WAL_INDEX_CORRUPT', `Cannot ${verb} wal-index: its hash table is full`, {
    frame,
    pgno,
  });
}
