const INITIAL_COUNT = 64;

/** The entries that a transaction has overwritten, 12 bytes each, so that it can be taken back. */
export class ChecksumUndo {
  #pgnos = new Uint32Array(INITIAL_COUNT);
  #checksums = new BigUint64Array(INITIAL_COUNT);
  #count = 0;

  push(pgno: number, checksum: bigint): void {
    if (this.#count === this.#pgnos.length) this.#grow();
    this.#pgnos[this.#count] = pgno;
    this.#checksums[this.#count] = checksum;
    this.#count += 1;
  }

  /** Gives the entries to `restore`, the last one first, and forgets them. */
  unwind(restore: (pgno: number, checksum: bigint) => void): void {
    for (let index = this.#count - 1; index >= 0; index--)
      restore(this.#pgnos[index], this.#checksums[index]);
    this.clear();
  }

  clear(): void {
    this.#count = 0;
    if (this.#pgnos.length === INITIAL_COUNT) return;
    this.#pgnos = new Uint32Array(INITIAL_COUNT);
    this.#checksums = new BigUint64Array(INITIAL_COUNT);
  }

  #grow(): void {
    const pgnos = new Uint32Array(this.#pgnos.length * 2);
    const checksums = new BigUint64Array(pgnos.length);
    pgnos.set(this.#pgnos);
    checksums.set(this.#checksums);
    this.#pgnos = pgnos;
    this.#checksums = checksums;
  }
}
