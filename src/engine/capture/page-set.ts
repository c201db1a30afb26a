const CHUNK_BITS = 15;
const CHUNK_BYTES = (1 << CHUNK_BITS) / 8;

/** A set of page numbers: a bit for each, in chunks that exist where a page is in them. */
export class PageSet {
  readonly #chunks = new Map<number, Uint8Array>();

  add(pgno: number): void {
    const key = pgno >>> CHUNK_BITS;
    let chunk = this.#chunks.get(key);
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK_BYTES);
      this.#chunks.set(key, chunk);
    }
    chunk[(pgno >>> 3) % CHUNK_BYTES] |= 1 << (pgno & 7);
  }

  has(pgno: number): boolean {
    const chunk = this.#chunks.get(pgno >>> CHUNK_BITS);
    return chunk !== undefined && (chunk[(pgno >>> 3) % CHUNK_BYTES] & (1 << (pgno & 7))) !== 0;
  }

  clear(): void {
    this.#chunks.clear();
  }
}
