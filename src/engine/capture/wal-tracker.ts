import {readU32be} from '../../lib/bytes.ts';
import {SqliteFormatError} from '../../sqlite/error.ts';
import {
  decodeWalFrameHeader,
  decodeWalHeader,
  frameOffset,
  type StoredWalHeader,
  verifyWalFrame,
  WAL_FRAME_HEADER_SIZE,
  WAL_HEADER_SIZE,
} from '../../sqlite/wal.ts';
import {PageSet} from './page-set.ts';

/** Reads bytes of the backing -wal into `target`. Returns how many there were. */
export type ReadWal = (target: Uint8Array, position: number) => number;

/** A committed transaction in the WAL: frames `first` to `end` (not included), 0-based. */
export interface WalTransaction {
  readonly first: number;
  readonly end: number;
  /** Database size in pages after it. */
  readonly commit: number;
}

const READ_BYTES_MAX = 256 * 1024;
const FRAMES_MIN = 1024;
const NONE: Uint32Array = new Uint32Array(0);

/**
 * Follows what apps write to a -wal and tells the transactions in it. A transaction is committed when a frame
 * with a commit size is there and the checksums are valid from the last commit up to it; with cache spill SQLite
 * rewrites frames inside a transaction and mends the checksums after the commit frame, so an invalid one means
 * "not yet" (wal.c, walRewriteChecksums). Looks at byte ranges, never at single requests.
 */
export class WalTracker {
  readonly #read: ReadWal;
  #header: StoredWalHeader | undefined;
  /** Page number of each valid frame, and the running checksum after it. */
  #pgnos = new Uint32Array(FRAMES_MIN);
  #sums = new Uint32Array(2 * FRAMES_MIN);
  #validCount = 0;
  #committedCount = 0;
  /** Where the last committed transaction begins. */
  #lastFirst = 0;
  #writtenEnd = 0;
  /** The first frame that is not valid was checked: there is nothing new before it is written again. */
  #isStuck = false;
  readonly #running = new Uint32Array(2);
  #buffer = new Uint8Array(0);
  /** Frames that are in `#buffer` as they are in the file. */
  #bufferFirst = 0;
  #bufferCount = 0;
  /** The pages of the first `#heldCount` committed frames. */
  readonly #held = new PageSet();
  #heldCount = 0;

  constructor(read: ReadWal) {
    this.#read = read;
  }

  /** Header of the current generation, or undefined while there is none. */
  get header(): StoredWalHeader | undefined {
    return this.#header;
  }

  get committedCount(): number {
    return this.#committedCount;
  }

  get pageSize(): number {
    return this.#header?.pageSize ?? 0;
  }

  /** Where the last committed transaction ends, in bytes. */
  get committedEnd(): number {
    return this.#header === undefined ? 0 : frameOffset(this.#committedCount, this.#header.pageSize);
  }

  /** Whether a write at `offset` changes something committed: frames, or the header that they hang on. */
  overwrites(offset: number): boolean {
    return this.#committedCount > 0 && offset < this.committedEnd;
  }

  /** Frames were written that nobody has checked yet: they may be committed. */
  get isBehind(): boolean {
    return (
      !this.#isStuck &&
      this.#header !== undefined &&
      this.#writtenEnd >= frameOffset(this.#validCount + 1, this.pageSize)
    );
  }

  /** How far the file was written, in bytes; old frames may be there beyond the new ones. */
  get writtenEnd(): number {
    return this.#writtenEnd;
  }

  /** Page numbers of the committed frames `first` to `end` (not included): a view, valid until the WAL is written. */
  pgnosOf(first: number, end: number): Uint32Array {
    return this.#pgnos.subarray(first, end);
  }

  /** Database size in pages as of the last committed transaction. */
  get lastCommit(): number {
    return this.commitAt(this.#committedCount);
  }

  /** Database size in pages as of the transaction that ends with the first `end` frames. */
  commitAt(end: number): number {
    if (end === 0) return 0;
    const bytes = new Uint8Array(8);
    this.#read(bytes, frameOffset(end - 1, this.pageSize));
    return readU32be(bytes, 4);
  }

  /** Page number in the committed frame `frame`. */
  pgnoOf(frame: number): number {
    return this.#pgnos[frame];
  }

  /** The page in a frame that was just checked: a view, valid until the next call of `next` or `wrote`. Else undefined. */
  pageJustChecked(frame: number): Uint8Array | undefined {
    const index = frame - this.#bufferFirst;
    if (index < 0 || index >= this.#bufferCount || frame >= this.#validCount) return undefined;
    const at = index * this.#frameSize + WAL_FRAME_HEADER_SIZE;
    return this.#buffer.subarray(at, at + this.pageSize);
  }

  /** The last frame below `end` that holds `pgno`, or -1. */
  findFrame(pgno: number, end: number): number {
    for (let frame = end - 1; frame >= 0; frame--) if (this.#pgnos[frame] === pgno) return frame;
    return -1;
  }

  /** Whether a committed frame holds the page. */
  holds(pgno: number): boolean {
    for (; this.#heldCount < this.#committedCount; this.#heldCount++)
      this.#held.add(this.#pgnos[this.#heldCount]);
    return this.#held.has(pgno);
  }

  /** The file is gone or empty. */
  reset(): void {
    this.#bufferCount = 0;
    this.#header = undefined;
    this.#forgetFrom(0);
    this.#writtenEnd = 0;
    this.#isStuck = false;
  }

  /**
   * Takes note of a write of `size` bytes at `offset`. Returns the pages of transactions that may never have been, since
   * their writer died before it published them: of those whose frames it wrote over under the same salts, and of the last
   * one where other salts begin the WAL anew. Of that one everything is in the database file, or nothing.
   */
  wrote(offset: number, size: number): Uint32Array {
    this.#bufferCount = 0;
    const last = offset < WAL_HEADER_SIZE ? this.#readHeader() : NONE;
    this.#writtenEnd = Math.max(this.#writtenEnd, offset + size);
    if (this.#header === undefined || offset + size <= WAL_HEADER_SIZE) return last;
    const touched = Math.max(0, Math.floor((offset - WAL_HEADER_SIZE) / this.#frameSize));
    if (touched <= this.#validCount) this.#isStuck = false;
    if (touched >= this.#committedCount) {
      this.#validCount = Math.min(this.#validCount, touched);
      return last;
    }
    const undone = this.#pgnos.slice(touched, this.#committedCount);
    this.#forgetFrom(touched);
    return undone;
  }

  /** The frames from `count` on are not valid any more. */
  #forgetFrom(count: number): void {
    this.#validCount = Math.min(this.#validCount, count);
    this.#committedCount = Math.min(this.#committedCount, count);
    this.#lastFirst = Math.min(this.#lastFirst, count);
    if (this.#heldCount <= this.#committedCount) return;
    this.#held.clear();
    this.#heldCount = 0;
  }

  /** The file was cut to `size` bytes. */
  truncated(size: number): Uint32Array {
    this.#writtenEnd = Math.min(this.#writtenEnd, size);
    if (size < WAL_HEADER_SIZE) {
      this.reset();
      return NONE;
    }
    return this.#header === undefined || size >= this.committedEnd ? NONE : this.wrote(size, 0);
  }

  /**
   * Goes on from a known state after a restart: `capturedEnd` bytes of the WAL with these salts are in the log already. Where the
   * disk has lost some of them `committedEnd` is less afterwards.
   */
  load(walSize: number, capturedEnd: number): void {
    this.reset();
    this.#readHeader();
    this.#writtenEnd = walSize;
    if (this.#header === undefined) return;
    const known = Math.floor((Math.min(capturedEnd, walSize) - WAL_HEADER_SIZE) / this.#frameSize);
    let first = 0;
    while (this.#validCount < known) {
      const isCommit = this.#adopt(this.#header);
      if (isCommit === undefined) break;
      if (!isCommit) continue;
      this.#lastFirst = first;
      first = this.#validCount;
    }
    this.#committedCount = this.#validCount;
  }

  /**
   * Checks the frames that are complete by now, at most `frameCountMax` of them, and returns the next committed
   * transaction. `'more'` means that frames are left to check.
   */
  next(frameCountMax = Number.POSITIVE_INFINITY): WalTransaction | 'more' | undefined {
    const header = this.#header;
    if (header === undefined || this.#isStuck) return undefined;
    let left = frameCountMax;
    while (this.#writtenEnd >= frameOffset(this.#validCount + 1, header.pageSize)) {
      if (left <= 0) return 'more';
      const complete = Math.floor((this.#writtenEnd - WAL_HEADER_SIZE) / this.#frameSize) - this.#validCount;
      const batch = Math.min(complete, left, Math.max(1, Math.floor(READ_BYTES_MAX / this.#frameSize)));
      const found = this.#verify(header, batch);
      if (found !== undefined) return found === 'invalid' ? undefined : found;
      left -= batch;
    }
    return undefined;
  }

  get #frameSize(): number {
    return WAL_FRAME_HEADER_SIZE + (this.#header?.pageSize ?? 0);
  }

  #verify(header: StoredWalHeader, batch: number): WalTransaction | 'invalid' | undefined {
    const bytes = this.#readFrames(this.#validCount, batch);
    this.#seed(header);
    for (let at = 0; at + this.#frameSize <= bytes.length; at += this.#frameSize) {
      if (!verifyWalFrame(bytes, at, header, this.#running)) {
        this.#isStuck = true;
        return 'invalid';
      }
      this.#push(readU32be(bytes, at));
      const commit = readU32be(bytes, at + 4);
      if (commit === 0) continue;
      const first = this.#committedCount;
      this.#lastFirst = first;
      this.#committedCount = this.#validCount;
      return {first, end: this.#validCount, commit};
    }
    this.#isStuck = bytes.length < this.#frameSize;
    return this.#isStuck ? 'invalid' : undefined;
  }

  #seed(header: StoredWalHeader): void {
    const last = this.#validCount - 1;
    this.#running[0] = last < 0 ? header.checksum1 : this.#sums[2 * last];
    this.#running[1] = last < 0 ? header.checksum2 : this.#sums[2 * last + 1];
  }

  #push(pgno: number): void {
    this.#grow();
    this.#pgnos[this.#validCount] = pgno;
    this.#sums[2 * this.#validCount] = this.#running[0];
    this.#sums[2 * this.#validCount + 1] = this.#running[1];
    this.#validCount++;
  }

  #grow(): void {
    if (this.#validCount < this.#pgnos.length) return;
    const pgnos = new Uint32Array(2 * this.#pgnos.length);
    pgnos.set(this.#pgnos);
    const sums = new Uint32Array(2 * this.#sums.length);
    sums.set(this.#sums);
    this.#pgnos = pgnos;
    this.#sums = sums;
  }

  /**
   * A frame that was captured before: its header says the checksum that the next one goes on from. Returns whether it commits;
   * undefined where it is not there.
   */
  #adopt({pageSize, salt1, salt2}: StoredWalHeader): boolean | undefined {
    const bytes = new Uint8Array(WAL_FRAME_HEADER_SIZE);
    this.#read(bytes, frameOffset(this.#validCount, pageSize));
    if (readU32be(bytes, 0) === 0) return undefined; // Zeros: the disk lost it.
    const frame = decodeWalFrameHeader(bytes);
    if (frame.salt1 !== salt1 || frame.salt2 !== salt2) return undefined;
    this.#running[0] = frame.checksum1;
    this.#running[1] = frame.checksum2;
    this.#push(frame.pgno);
    return frame.commit !== 0;
  }

  #readFrames(frame: number, count: number): Uint8Array {
    const size = count * this.#frameSize;
    if (this.#buffer.length < size) this.#buffer = new Uint8Array(Math.max(size, 64 * 1024));
    this.#bufferCount = 0;
    const bytes = this.#buffer.subarray(0, size);
    const sizeRead = this.#read(bytes, frameOffset(frame, this.pageSize));
    if (sizeRead < size) return bytes.subarray(0, sizeRead);
    this.#bufferFirst = frame;
    this.#bufferCount = count;
    return bytes;
  }

  /** A new header with other salts starts a new generation; the old frames are void. Returns the pages of the last transaction in them. */
  #readHeader(): Uint32Array {
    const bytes = new Uint8Array(WAL_HEADER_SIZE);
    const old = this.#header;
    try {
      this.#header = this.#read(bytes, 0) === WAL_HEADER_SIZE ? decodeWalHeader(bytes) : undefined;
    } catch (error) {
      if (!(error instanceof SqliteFormatError)) throw error;
      this.#header = undefined;
    }
    this.#isStuck = false;
    const isSame = old !== undefined && this.#header?.salt1 === old.salt1 && this.#header.salt2 === old.salt2;
    if (isSame) return NONE;
    const last = this.#pgnos.slice(this.#lastFirst, this.#committedCount);
    this.#forgetFrom(0);
    this.#writtenEnd = 0;
    return last;
  }
}
