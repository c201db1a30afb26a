import {LtxError} from './error.ts';
import {isSnapshot, type LtxHeader} from './header.ts';
import {lz4Bound} from './lz4-block.ts';
import type {RecordReader} from './record-reader.ts';

// Page header:    0 pgno u32 | 4 flags u16                     all zero: end of the pages
//   block (0x1):  6 size u32 | 10 LZ4 block                     what we write
//   frame (0x0):  6 LZ4 frame, which knows its own size         written by older programs
// LZ4 frame:      0 magic, FLG, BD, HC | 7 size u32le, bit 31: stored | 11 block | end mark u32 0 | xxHash32 u32
export const PAGE_HEADER_SIZE = 6;
export const SIZED_PAGE_HEADER_SIZE = 10;
const FLAG_SIZED = 0x1;

/** What every known writer of frames sets: 64 KiB blocks, independent, content checksum, no content size. */
const LZ4_FRAME_HEADER = Uint8Array.of(0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7);
const LZ4_FRAME_HEADER_SIZE = 7;
const LZ4_FRAME_TAIL_SIZE = 8;
const LZ4_STORED = 0x8000_0000;

/** Writes the header of a page in block encoding, 10 bytes. */
export function putSizedPageHeader(target: Uint8Array, pgno: number, payloadSize: number): void {
  putUint32(target, 0, pgno);
  target[4] = 0;
  target[5] = FLAG_SIZED;
  putUint32(target, 6, payloadSize);
}

/** Where the parts of one page's frame lie. All sizes are bytes. */
export interface PageFrame {
  /** 0 at the end of the pages; then all else is 0 too, except `headerSize`. */
  pgno: number;
  /** The bytes that the file checksum covers as they stand. */
  headerSize: number;
  /** Offset of the page's (compressed) bytes from the start of the frame. */
  payloadOffset: number;
  payloadSize: number;
  isStored: boolean;
  /** Whole frame, with what follows the payload. */
  size: number;
}

export function emptyPageFrame(): PageFrame {
  return {pgno: 0, headerSize: 0, payloadOffset: 0, payloadSize: 0, isStored: false, size: 0};
}

/**
 * Reads the page header at the reader's place into `frame`, without moving it. Sizes are checked against what a page
 * can need at most, not against the bytes that remain. Throws `LTX_TRUNCATED`, `LTX_BAD_PAGE`, `LTX_BAD_PAYLOAD`.
 */
export function readPageFrame(reader: RecordReader, pageSize: number, frame: PageFrame): void {
  reader.need(PAGE_HEADER_SIZE);
  frame.pgno = getUint32(reader.bytes, reader.at);
  const flags = (reader.bytes[reader.at + 4] << 8) | reader.bytes[reader.at + 5];
  if (frame.pgno === 0) {
    if (flags !== 0) fail('the end mark has flags', {flags});
    setParts(frame, PAGE_HEADER_SIZE, PAGE_HEADER_SIZE, 0, false);
    frame.size = PAGE_HEADER_SIZE;
    return;
  }
  if (flags === FLAG_SIZED) readSized(reader, pageSize, frame);
  else if (flags === 0) readLz4Frame(reader, pageSize, frame);
  else fail(`page ${frame.pgno} has unknown flags`, {pgno: frame.pgno, flags});
}

function readSized(reader: RecordReader, pageSize: number, frame: PageFrame): void {
  reader.need(SIZED_PAGE_HEADER_SIZE);
  const size = getUint32(reader.bytes, reader.at + PAGE_HEADER_SIZE);
  checkPayloadSize(frame.pgno, size, pageSize);
  setParts(frame, SIZED_PAGE_HEADER_SIZE, SIZED_PAGE_HEADER_SIZE, size, false);
  frame.size = SIZED_PAGE_HEADER_SIZE + size;
}

function readLz4Frame(reader: RecordReader, pageSize: number, frame: PageFrame): void {
  const payloadOffset = PAGE_HEADER_SIZE + LZ4_FRAME_HEADER_SIZE + 4;
  reader.need(payloadOffset);
  const at = reader.at + PAGE_HEADER_SIZE;
  for (let i = 0; i < LZ4_FRAME_HEADER_SIZE; i++) {
    if (reader.bytes[at + i] !== LZ4_FRAME_HEADER[i]) {
      badPayload(frame.pgno, 'its LZ4 frame header is not the expected one');
    }
  }
  const word = getUint32Little(reader.bytes, at + LZ4_FRAME_HEADER_SIZE);
  const isStored = word >= LZ4_STORED;
  const size = isStored ? word - LZ4_STORED : word;
  checkPayloadSize(frame.pgno, size, pageSize);
  if (isStored && size !== pageSize) badPayload(frame.pgno, `${size} bytes are stored`);
  setParts(frame, PAGE_HEADER_SIZE, payloadOffset, size, isStored);
  frame.size = payloadOffset + size + LZ4_FRAME_TAIL_SIZE;
}

/**
 * Checks the end mark behind the payload of an LZ4 frame, which must be in the reader's window. The xxHash32 after it
 * is not computed: it covers the same bytes as the file checksum, which is.
 */
export function checkFrameTail(reader: RecordReader, frame: PageFrame): void {
  const tail = frame.payloadOffset + frame.payloadSize;
  if (tail === frame.size) return;
  if (getUint32Little(reader.bytes, reader.at + tail) !== 0)
    badPayload(frame.pgno, 'its LZ4 frame has a second block');
}

function setParts(
  frame: PageFrame,
  headerSize: number,
  payloadOffset: number,
  payloadSize: number,
  isStored: boolean,
): void {
  frame.headerSize = headerSize;
  frame.payloadOffset = payloadOffset;
  frame.payloadSize = payloadSize;
  frame.isStored = isStored;
}

function checkPayloadSize(pgno: number, size: number, pageSize: number): void {
  const sizeMax = lz4Bound(pageSize);
  if (size === 0 || size > sizeMax)
    badPayload(pgno, `it takes ${size} bytes, at least 1 and at most ${sizeMax}`);
}

/** The rules for the sequence of page numbers, the same for writers and readers. */
export class PageOrder {
  readonly #commit: number;
  readonly #lockPgno: number;
  readonly #isSnapshot: boolean;
  #last = 0;

  constructor(header: LtxHeader, lockPgno: number) {
    this.#commit = header.commit;
    this.#lockPgno = lockPgno;
    this.#isSnapshot = isSnapshot(header);
  }

  /** Takes the next page number. Throws `LTX_BAD_PAGE` when it is out of order or bounds, or the lock page. */
  next(pgno: number): void {
    const last = this.#last;
    if (pgno <= last) fail(`page ${pgno} follows page ${last}`, {pgno, last});
    if (pgno > this.#commit) fail(`page ${pgno} is past the end`, {pgno, commit: this.#commit});
    if (pgno === this.#lockPgno) fail(`page ${pgno} is the lock page`, {pgno});
    if (this.#isSnapshot && pgno !== this.#after(last)) {
      fail(`page ${pgno} follows page ${last} in a snapshot`, {pgno, last});
    }
    this.#last = pgno;
  }

  /** Checks that a snapshot has reached its last page. Throws `LTX_BAD_PAGE`. */
  end(): void {
    if (this.#isSnapshot && this.#after(this.#last) <= this.#commit) {
      fail('a snapshot ends early', {last: this.#last, commit: this.#commit});
    }
  }

  #after(pgno: number): number {
    return pgno + 1 === this.#lockPgno ? pgno + 2 : pgno + 1;
  }
}

function getUint32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

function getUint32Little(bytes: Uint8Array, at: number): number {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

function putUint32(target: Uint8Array, at: number, value: number): void {
  target[at] = value >>> 24;
  target[at + 1] = value >>> 16;
  target[at + 2] = value >>> 8;
  target[at + 3] = value;
}

function fail(state: string, detail: Readonly<Record<string, unknown>>): never {
  throw new LtxError('LTX_BAD_PAGE', `Cannot accept LTX pages: ${state}`, detail);
}

function badPayload(pgno: number, state: string): never {
  throw new LtxError('LTX_BAD_PAYLOAD', `Cannot read page ${pgno}: ${state}`, {pgno});
}
