import type {PageTransaction} from '../apply/page-transaction.ts';

/** Bytes of pages that a batch keeps in memory. */
const BATCH_BYTES_MAX = 8 * 1024 * 1024;
/** A larger buffer is not kept from one batch to the next: there may be many databases. */
const BUFFER_SIZE_KEPT = 64 * 1024;

/**
 * The pages of consecutive records, the last version of each: applied at once they cost little more than one record alone.
 * A record's pages count only when `endRecord` says that it is sound.
 */
export class PageBatch implements PageTransaction {
  pageSize = 0;
  commit = 0;
  recordCount = 0;
  /** There was no room for all pages: they have to be read from the records again. */
  isIncomplete = false;
  #buffer = new Uint8Array(0);
  #slotCount = 0;
  readonly #slots = new Map<number, number>();
  /** Of the record that is being read; page number and slot in turn. */
  readonly #open: number[] = [];

  get pageCountHint(): number {
    return this.#slots.size;
  }

  clear(): void {
    this.recordCount = 0;
    this.isIncomplete = false;
    this.#slotCount = 0;
    this.#slots.clear();
    this.#open.length = 0;
    if (this.#buffer.length > BUFFER_SIZE_KEPT) this.#buffer = new Uint8Array(0);
  }

  beginRecord(pageSize: number): void {
    this.#open.length = 0;
    if (this.recordCount === 0) this.pageSize = pageSize;
    else if (this.pageSize !== pageSize) this.isIncomplete = true;
  }

  add(pgno: number, page: Uint8Array): void {
    if (this.isIncomplete) return;
    const end = (this.#slotCount + 1) * this.pageSize;
    if (end > BATCH_BYTES_MAX) {
      this.isIncomplete = true;
      return;
    }
    if (end > this.#buffer.length) this.#grow(end);
    this.#buffer.set(page, end - this.pageSize);
    this.#open.push(pgno, this.#slotCount++);
  }

  /** `commit`: the database's size in pages after the record. */
  endRecord(commit: number): void {
    for (let i = 0; i < this.#open.length; i += 2) this.#slots.set(this.#open[i], this.#open[i + 1]);
    this.#open.length = 0;
    if (commit < this.commit && this.recordCount > 0)
      for (const pgno of this.#slots.keys()) if (pgno > commit) this.#slots.delete(pgno);
    this.commit = commit;
    this.recordCount++;
  }

  *pages(): Generator<{readonly pgno: number; readonly page: Uint8Array}> {
    const {pageSize} = this;
    for (const pgno of [...this.#slots.keys()].sort((a, b) => a - b)) {
      const slot = this.#slots.get(pgno) ?? 0;
      yield {pgno, page: this.#buffer.subarray(slot * pageSize, (slot + 1) * pageSize)};
    }
  }

  #grow(size: number): void {
    const larger = new Uint8Array(Math.min(size * 2, BATCH_BYTES_MAX));
    larger.set(this.#buffer);
    this.#buffer = larger;
  }
}
