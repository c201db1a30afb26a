import {assert} from '../lib/assert.ts';
import {type PageHasher, xorChecksum} from './checksum.ts';
import type {Crc64} from './crc64.ts';
import {LtxError} from './error.ts';
import {decodeLtxHeader, defaultLockPgno, isSnapshot, LTX_HEADER_SIZE, type LtxHeader} from './header.ts';
import {decodeLz4Block, isLiteralsBlock} from './lz4-block.ts';
import {checkFrameTail, emptyPageFrame, type PageFrame, PageOrder, readPageFrame} from './page-frame.ts';
import {PageIndex} from './page-index.ts';
import {CHECKSUM_FLAG, type Checksum} from './position.ts';
import {type ByteSource, RecordReader} from './record-reader.ts';
import {decodeLtxTrailer, LTX_TRAILER_SIZE, type LtxTrailer} from './trailer.ts';

export {type ByteSource, bytesSource} from './record-reader.ts';

const DECODE_WINDOW_SIZE = 64 * 1024;
/** Measuring looks at page headers only, so a large window would mostly hold what is passed over. */
const MEASURE_WINDOW_SIZE = 8 * 1024;
const INDEX_PART_SIZE = 8 * 1024;

export interface LtxDecoderOptions {
  /** The record, and nothing after it. */
  readonly source: ByteSource;
  /** For this decoder alone until it is closed. */
  readonly crc64: Crc64;
  /** The page that is never stored, where the pending byte is not at its usual place. */
  readonly lockPgno?: number;
  /**
   * If given, `nextPage` gives each page's checksum too, at next to no cost, and the pages of a snapshot are checked
   * against its post-apply checksum.
   */
  readonly pageHasher?: PageHasher;
}

export interface LtxPage {
  readonly pgno: number;
  /** A view, valid until the decoder's next call: copy it to keep it. */
  readonly page: Uint8Array;
  /** The page's checksum, if the decoder has a page hasher. */
  readonly checksum: Checksum | undefined;
}

/**
 * Reads one LTX record. Stricter than the format's reference: page numbers must be in order and in bounds, payloads
 * must give exactly a page, and the index must agree with the frames. Pages are certain only after `close`. All
 * methods throw `LtxError` for bad bytes; what the source's `read` throws passes through.
 */
export class LtxDecoder {
  readonly header: LtxHeader;
  readonly #reader: RecordReader;
  readonly #sourceSize: number;
  readonly #crc64: Crc64;
  readonly #pageHasher: PageHasher | undefined;
  readonly #order: PageOrder;
  readonly #index = new PageIndex();
  readonly #frame: PageFrame = emptyPageFrame();
  #page: Uint8Array | undefined;
  #pagesChecksum: Checksum = CHECKSUM_FLAG;
  #state: 'pages' | 'end' | 'closed' = 'pages';

  /** Reads the header. Throws `LTX_TRUNCATED`, `LTX_BAD_MAGIC`, `LTX_BAD_HEADER`. */
  constructor(options: LtxDecoderOptions) {
    this.#crc64 = options.crc64;
    this.#sourceSize = options.source.size;
    this.#reader = new RecordReader(options.source, 0, DECODE_WINDOW_SIZE);
    this.#crc64.reset();
    this.header = readHeader(this.#reader, this.#crc64);
    this.#order = new PageOrder(this.header, options.lockPgno ?? defaultLockPgno(this.header.pageSize));
    this.#pageHasher = options.pageHasher;
  }

  /** The next page, or undefined after the last one. The page is a view, valid until the next call: copy it to keep it. */
  nextPage(): LtxPage | undefined {
    assert(this.#state !== 'closed', 'the decoder is open');
    if (this.#state === 'end') return undefined;
    const reader = this.#reader;
    const frame = this.#frame;
    readPageFrame(reader, this.header.pageSize, frame);
    if (frame.pgno === 0) {
      this.#order.end();
      this.#take(frame.size);
      this.#state = 'end';
      return undefined;
    }
    const {pgno} = frame;
    this.#order.next(pgno);
    reader.need(frame.size);
    checkFrameTail(reader, frame);
    this.#crc64.update(reader.bytes.subarray(reader.at, reader.at + frame.headerSize));
    const page = this.#decompress();
    const checksum = this.#hash(pgno, page);
    this.#index.add(pgno, reader.offset, frame.size);
    reader.skip(frame.size);
    return {pgno, page, checksum};
  }

  /**
   * Reads the pages that are left, the index and the trailer, and checks all of them and the file checksum. Throws
   * `LTX_CHECKSUM_MISMATCH`, `LTX_BAD_INDEX`, `LTX_BAD_TRAILER`, `LTX_TRAILING_BYTES` and what `nextPage` throws.
   */
  close(): LtxTrailer {
    while (this.nextPage() !== undefined);
    this.#state = 'closed';
    readIndex(this.#reader, this.#index.finish(), this.#crc64);
    this.#reader.need(LTX_TRAILER_SIZE);
    const trailer = decodeLtxTrailer(this.#reader.bytes, this.#reader.at, this.header);
    this.#take(8);
    this.#reader.skip(8);
    const excess = this.#sourceSize - this.#reader.offset;
    if (excess !== 0) {
      throw new LtxError('LTX_TRAILING_BYTES', `Cannot accept LTX record: ${excess} bytes follow it`, {
        excess,
      });
    }
    const actual = CHECKSUM_FLAG | this.#crc64.digest();
    if (actual !== trailer.fileChecksum) {
      throw new LtxError(
        'LTX_CHECKSUM_MISMATCH',
        'Cannot accept LTX record: its bytes do not match its checksum',
        {
          actual,
          expected: trailer.fileChecksum,
        },
      );
    }
    const isChecked = this.#pageHasher !== undefined && isSnapshot(this.header) && !this.header.noChecksum;
    if (isChecked && this.#pagesChecksum !== trailer.postApplyChecksum) {
      throw new LtxError(
        'LTX_BAD_TRAILER',
        'Cannot accept snapshot: its pages do not match its post-apply checksum',
        {
          actual: this.#pagesChecksum,
          expected: trailer.postApplyChecksum,
        },
      );
    }
    return trailer;
  }

  /** Adds a page to the file checksum, and where somebody wants to know to the checksum of all pages. */
  #hash(pgno: number, page: Uint8Array): Checksum | undefined {
    if (this.#pageHasher === undefined) {
      this.#crc64.update(page);
      return undefined;
    }
    const checksum = this.#pageHasher.checksumInto(this.#crc64, pgno, page);
    this.#pagesChecksum = xorChecksum(this.#pagesChecksum, checksum);
    return checksum;
  }

  /** The page of the frame at the reader's place: in the window itself where it is stored as it is. */
  #decompress(): Uint8Array {
    const {bytes, at} = this.#reader;
    const {pageSize} = this.header;
    const from = at + this.#frame.payloadOffset;
    const to = from + this.#frame.payloadSize;
    const isPlain = this.#frame.isStored || isLiteralsBlock(bytes, from, to, pageSize);
    if (isPlain) return bytes.subarray(to - pageSize, to);
    this.#page ??= new Uint8Array(pageSize);
    decodeLz4Block(bytes, from, to, this.#page);
    return this.#page;
  }

  /** Adds the next `size` bytes to the file checksum and passes over them. */
  #take(size: number): void {
    const {bytes, at} = this.#reader;
    this.#crc64.update(bytes.subarray(at, at + size));
    this.#reader.skip(size);
  }
}

/**
 * Finds where the record that starts at `start` of a longer source ends, walking its frames without decompressing
 * them. Checks everything but the payloads and the file checksum. Throws `LtxError` where the bytes are torn or foreign.
 */
export function measureLtx(
  source: ByteSource,
  start: number,
  lockPgno?: number,
): {header: LtxHeader; trailer: LtxTrailer; size: number} {
  const reader = new RecordReader(source, start, MEASURE_WINDOW_SIZE);
  const header = readHeader(reader);
  const order = new PageOrder(header, lockPgno ?? defaultLockPgno(header.pageSize));
  const index = new PageIndex();
  const frame = emptyPageFrame();
  // Page numbers ascend and each frame takes bytes, so the walk ends.
  for (;;) {
    readPageFrame(reader, header.pageSize, frame);
    if (frame.pgno === 0) break;
    order.next(frame.pgno);
    index.add(frame.pgno, reader.offset, frame.size);
    reader.skip(frame.size);
  }
  order.end();
  reader.skip(frame.size);
  readIndex(reader, index.finish());
  reader.need(LTX_TRAILER_SIZE);
  const trailer = decodeLtxTrailer(reader.bytes, reader.at, header);
  reader.skip(LTX_TRAILER_SIZE);
  return {header, trailer, size: reader.offset};
}

function readHeader(reader: RecordReader, crc64?: Crc64): LtxHeader {
  reader.need(LTX_HEADER_SIZE);
  const bytes = reader.bytes.subarray(reader.at, reader.at + LTX_HEADER_SIZE);
  const header = decodeLtxHeader(bytes);
  crc64?.update(bytes);
  reader.skip(LTX_HEADER_SIZE);
  return header;
}

/** Passes over the index, which must be `expected`, in parts: it may be larger than the window. */
function readIndex(reader: RecordReader, expected: Uint8Array, crc64?: Crc64): void {
  for (let done = 0; done < expected.length; done += INDEX_PART_SIZE) {
    const part = expected.subarray(done, done + INDEX_PART_SIZE);
    reader.need(part.length);
    for (let i = 0; i < part.length; i++) {
      if (reader.bytes[reader.at + i] !== part[i]) {
        const offset = reader.offset + i;
        throw new LtxError('LTX_BAD_INDEX', `Cannot accept LTX page index: it disagrees with the pages`, {
          offset,
        });
      }
    }
    crc64?.update(part);
    reader.skip(part.length);
  }
}
