import type {ByteSource} from '../ltx/record-reader.ts';

const ENTRIES_PER_CHUNK = 4096;
const ENTRY_SIZE = 8;

/** Checksums by page number, 8 bytes a page where there are any. 0 stands for none. */
export class PageSums {
  readonly #chunks = new Map<number, BigUint64Array>();
  #pgnoMax = 0;

  /** Highest page number that was ever set. */
  get pgnoMax(): number {
    return this.#pgnoMax;
  }

  get(pgno: number): bigint {
    return this.#chunks.get(Math.floor(pgno / ENTRIES_PER_CHUNK))?.[pgno % ENTRIES_PER_CHUNK] ?? 0n;
  }

  set(pgno: number, checksum: bigint): void {
    const index = Math.floor(pgno / ENTRIES_PER_CHUNK);
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = new BigUint64Array(ENTRIES_PER_CHUNK);
      this.#chunks.set(index, chunk);
    }
    chunk[pgno % ENTRIES_PER_CHUNK] = checksum;
    if (pgno > this.#pgnoMax) this.#pgnoMax = pgno;
  }

  /** Forgets all pages after `pageCount`. */
  truncate(pageCount: number): void {
    for (const [index, chunk] of this.#chunks) {
      const first = index * ENTRIES_PER_CHUNK;
      if (first > pageCount) this.#chunks.delete(index);
      else if (first + ENTRIES_PER_CHUNK > pageCount) chunk.fill(0n, pageCount - first + 1);
    }
    this.#pgnoMax = Math.min(this.#pgnoMax, pageCount);
  }

  clear(): void {
    this.truncate(0);
    this.#chunks.clear();
  }

  /** Exclusive or of all. */
  xor(): bigint {
    let sum = 0n;
    for (const chunk of this.#chunks.values()) for (const checksum of chunk) sum ^= checksum;
    return sum;
  }

  /** Reads the checksums of pages 1 to `pageCount`, as far as `source` has them, big-endian from `offset` on. */
  load(source: ByteSource, offset: number, pageCount: number): void {
    const bytes = new Uint8Array(ENTRIES_PER_CHUNK * ENTRY_SIZE);
    const view = new DataView(bytes.buffer);
    for (let first = 0; first < pageCount; first += ENTRIES_PER_CHUNK) {
      const count = Math.floor(source.read(offset + first * ENTRY_SIZE, bytes) / ENTRY_SIZE);
      const end = Math.min(count, pageCount - first);
      for (let i = 0; i < end; i++) this.set(first + i + 1, view.getBigUint64(i * ENTRY_SIZE));
      if (count < ENTRIES_PER_CHUNK) return;
    }
  }
}
