import {compressSync} from 'lz4-napi';
import {assert} from '../lib/assert.ts';
import type {PageHasher} from './checksum.ts';
import type {Crc64} from './crc64.ts';
import {defaultLockPgno, encodeLtxHeader, type LtxHeader} from './header.ts';
import {literalsHeadSize, putLiteralsHead} from './lz4-block.ts';
import {PAGE_HEADER_SIZE, PageOrder, putSizedPageHeader, SIZED_PAGE_HEADER_SIZE} from './page-frame.ts';
import {PageIndex} from './page-index.ts';
import {CHECKSUM_FLAG, type Checksum} from './position.ts';
import {LTX_TRAILER_SIZE, validatePostApply} from './trailer.ts';

/** `compressSync` puts the uncompressed size, 4 bytes, in front of the block. */
const LZ4_SIZE_PREFIX = 4;

export interface LtxEncoderOptions {
  readonly header: LtxHeader;
  /** For this encoder alone until it is closed. */
  readonly crc64: Crc64;
  /** Whether to compress pages. If not, each is stored as an LZ4 block of nothing but literals. */
  readonly compress: boolean;
  /** Takes the record's bytes in order. A chunk is only valid during the call. */
  readonly write: (chunk: Uint8Array) => void;
  /** The page that is never stored, where the pending byte is not at its usual place. */
  readonly lockPgno?: number;
  /** If given, `encodePage` returns each page's checksum, at next to no cost. */
  readonly pageHasher?: PageHasher;
}

/**
 * Writes one LTX record as a stream: construct (writes the header), `encodePage` in ascending order, `close`. After
 * an error the encoder is done for, and what it has written is no record.
 */
export class LtxEncoder {
  readonly #header: LtxHeader;
  readonly #crc64: Crc64;
  readonly #compress: boolean;
  readonly #write: (chunk: Uint8Array) => void;
  readonly #pageHasher: PageHasher | undefined;
  readonly #order: PageOrder;
  readonly #index = new PageIndex();
  /** The head of a page's frame, as far as it goes. */
  readonly #head: Uint8Array;
  readonly #pageHeader: Uint8Array;
  #size = 0;
  #isClosed = false;

  /** Throws `LTX_BAD_HEADER`. */
  constructor(options: LtxEncoderOptions) {
    const {header, crc64} = options;
    this.#header = header;
    this.#crc64 = crc64;
    this.#compress = options.compress;
    this.#write = options.write;
    this.#pageHasher = options.pageHasher;
    this.#order = new PageOrder(header, options.lockPgno ?? defaultLockPgno(header.pageSize));
    const head = encodeLtxHeader(header);
    crc64.reset();
    crc64.update(head);
    this.#emit(head);
    this.#head = new Uint8Array(
      SIZED_PAGE_HEADER_SIZE + (this.#compress ? 0 : literalsHeadSize(header.pageSize)),
    );
    this.#pageHeader = this.#head.subarray(0, SIZED_PAGE_HEADER_SIZE);
    if (!this.#compress) putLiteralsHead(this.#head, SIZED_PAGE_HEADER_SIZE, header.pageSize);
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#size;
  }

  /** Adds a page. Returns its checksum if there is a page hasher. Throws `LTX_BAD_PAGE` where the number breaks the order, is past the end or the lock page. */
  encodePage(pgno: number, page: Uint8Array): Checksum | undefined {
    assert(!this.#isClosed, 'the encoder is open');
    assert(page.length === this.#header.pageSize, 'a page has the page size');
    this.#order.next(pgno);
    const payload = this.#compress ? compressSync(asBuffer(page)).subarray(LZ4_SIZE_PREFIX) : page;
    const frameSize = this.#head.length + payload.length;
    putSizedPageHeader(this.#head, pgno, frameSize - SIZED_PAGE_HEADER_SIZE);
    this.#index.add(pgno, this.#size, frameSize);
    this.#crc64.update(this.#pageHeader);
    let checksum: Checksum | undefined;
    if (this.#pageHasher === undefined) this.#crc64.update(page);
    else checksum = this.#pageHasher.checksumInto(this.#crc64, pgno, page);
    this.#emit(this.#head);
    this.#emit(payload);
    return checksum;
  }

  /**
   * Writes the index and the trailer. `postApplyChecksum` is 0 for a header without checksums. Throws
   * `LTX_BAD_TRAILER`, and `LTX_BAD_PAGE` for a snapshot that lacks pages at its end.
   */
  close(postApplyChecksum: bigint): {size: number; fileChecksum: Checksum} {
    assert(!this.#isClosed, 'the encoder is open');
    this.#isClosed = true;
    this.#order.end();
    validatePostApply(this.#header, postApplyChecksum);
    const index = this.#index.finish();
    const tail = new Uint8Array(PAGE_HEADER_SIZE + index.length + LTX_TRAILER_SIZE);
    tail.set(index, PAGE_HEADER_SIZE);
    const trailer = new DataView(tail.buffer, tail.length - LTX_TRAILER_SIZE);
    trailer.setBigUint64(0, postApplyChecksum);
    this.#crc64.update(tail.subarray(0, tail.length - 8));
    const fileChecksum = (CHECKSUM_FLAG | this.#crc64.digest()) as Checksum;
    trailer.setBigUint64(8, fileChecksum);
    this.#emit(tail);
    return {size: this.#size, fileChecksum};
  }

  #emit(chunk: Uint8Array): void {
    this.#write(chunk);
    this.#size += chunk.length;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
