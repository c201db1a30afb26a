import {assert} from '../lib/assert.ts';
import type {Crc64, Crc64Factory} from './crc64.ts';
import {CHECKSUM_FLAG, type Checksum} from './position.ts';

/** Checksums of single pages: CRC-64 over the page number, 4 bytes big-endian, then the page. */
export class PageHasher {
  readonly #factory: Crc64Factory;
  readonly #crc64: Crc64;
  readonly #pageCrc64: Crc64;
  readonly #prefix = new Uint8Array(4);

  constructor(factory: Crc64Factory) {
    this.#factory = factory;
    this.#crc64 = factory.create();
    this.#pageCrc64 = factory.create();
  }

  /** The checksum of `page` at the 1-based number `pgno`. The lock page has none: callers skip it. */
  checksum(pgno: number, page: Uint8Array): Checksum {
    this.#start(pgno);
    this.#crc64.update(page);
    return (CHECKSUM_FLAG | this.#crc64.digest()) as Checksum;
  }

  /** The same, and `stream` is updated with the page too, for the price of one pass over it. */
  checksumInto(stream: Crc64, pgno: number, page: Uint8Array): Checksum {
    const shift = this.#factory.shift(page.length);
    this.#pageCrc64.reset();
    this.#pageCrc64.update(page);
    stream.append(this.#pageCrc64, shift);
    this.#start(pgno);
    this.#crc64.append(this.#pageCrc64, shift);
    return (CHECKSUM_FLAG | this.#crc64.digest()) as Checksum;
  }

  #start(pgno: number): void {
    assert(pgno >= 1 && pgno <= 0xffff_ffff, 'a page number is 1-based and fits 32 bits');
    const prefix = this.#prefix;
    prefix[0] = pgno >>> 24;
    prefix[1] = pgno >>> 16;
    prefix[2] = pgno >>> 8;
    prefix[3] = pgno;
    this.#crc64.reset();
    this.#crc64.update(prefix);
  }
}

/**
 * Adds a page's checksum to a rolling checksum, or takes it away again: both are the same XOR, and the order
 * does not matter. The flag stays set.
 */
export function xorChecksum(a: Checksum, b: Checksum): Checksum {
  return (CHECKSUM_FLAG | (a ^ b)) as Checksum;
}
