import {closeSync, constants, openSync} from 'node:fs';
import type {Disk} from '../../lib/disk.ts';

// File, little-endian:  0 generation u32 | 4 reserved u32 | 8 pending txid u64 | then records of 12 bytes:
// generation u32 | first page u32 | page count u32
const HEADER_SIZE = 16;
const RECORD_SIZE = 12;
/** A list with as many is full: what would come next is not known. */
const RECORDS_MAX = 1 << 20;
/** More pages are not worth the memory: all are looked at then. */
const PAGES_MAX = 1 << 22;

/**
 * The pages of the database file that were written since the last commit in a rollback journal mode, kept on disk too
 * (without a flush), so that a daemon that takes over knows them. Records of an older generation are void.
 */
export class DirtyPages {
  readonly #disk: Disk;
  readonly #fd: number;
  readonly #pages = new Set<number>();
  readonly #record = Buffer.alloc(RECORD_SIZE);
  #generation = 1;
  #recordCount = 0;
  #pendingTxid = 0n;
  #isUnknown = false;
  #isUnknownStored = false;

  private constructor(disk: Disk, fd: number) {
    this.#disk = disk;
    this.#fd = fd;
  }

  static open(disk: Disk, path: string): DirtyPages {
    const dirty = new DirtyPages(disk, openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600));
    dirty.#load();
    return dirty;
  }

  /** Whether anything was written. */
  get isAny(): boolean {
    return this.#isUnknown || this.#pages.size > 0;
  }

  /** Something was written, but which pages is not known: all of them have to be looked at. */
  get isUnknown(): boolean {
    return this.#isUnknown;
  }

  has(pgno: number): boolean {
    return this.#isUnknown || this.#pages.has(pgno);
  }

  get count(): number {
    return this.#pages.size;
  }

  /** In no order. */
  pages(): IterableIterator<number> {
    return this.#pages.values();
  }

  /** The transaction whose record was finished before its journal was removed; 0 if none. */
  get pendingTxid(): bigint {
    return this.#pendingTxid;
  }

  /** Called before the pages are written to the database file. */
  add(firstPgno: number, count: number): void {
    if (this.#isUnknown || this.#pages.size + count > PAGES_MAX) {
      this.addUnknown();
      return;
    }
    let isNew = false;
    for (let pgno = firstPgno; pgno < firstPgno + count; pgno++) {
      if (this.#pages.has(pgno)) continue;
      this.#pages.add(pgno);
      isNew = true;
    }
    if (isNew) this.#append(firstPgno, count);
  }

  /** As `add`, for bytes of the database file. */
  addBytes(offset: number, size: number, pageSize: number): void {
    if (pageSize === 0) {
      this.addUnknown();
      return;
    }
    const first = Math.floor(offset / pageSize) + 1;
    const last = Math.floor((offset + Math.max(size, 1) - 1) / pageSize) + 1;
    this.add(first, last - first + 1);
  }

  /** Called instead of `add` where the page size is not known yet. */
  addUnknown(): void {
    this.#setUnknown();
    if (this.#isUnknownStored) return;
    this.#append(0, 0);
    this.#isUnknownStored = true;
  }

  #setUnknown(): void {
    this.#isUnknown = true;
    this.#pages.clear();
  }

  setPending(txid: bigint): void {
    this.#pendingTxid = txid;
    this.#writeHeader();
  }

  clear(): void {
    if (!this.isAny && this.#pendingTxid === 0n) return;
    this.#pages.clear();
    this.#isUnknown = false;
    this.#isUnknownStored = false;
    this.#generation = (this.#generation + 1) >>> 0;
    this.#recordCount = 0;
    this.#pendingTxid = 0n;
    this.#writeHeader();
  }

  close(): void {
    closeSync(this.#fd);
  }

  #append(first: number, count: number): void {
    if (this.#recordCount >= RECORDS_MAX) {
      this.#setUnknown();
      return;
    }
    if (this.#recordCount === 0) this.#writeHeader();
    this.#record.writeUInt32LE(this.#generation, 0);
    this.#record.writeUInt32LE(first, 4);
    this.#record.writeUInt32LE(count, 8);
    this.#disk.write('dirty:append', this.#fd, this.#record, HEADER_SIZE + this.#recordCount * RECORD_SIZE);
    this.#recordCount++;
  }

  #writeHeader(): void {
    const header = Buffer.alloc(HEADER_SIZE);
    header.writeUInt32LE(this.#generation, 0);
    header.writeBigUInt64LE(this.#pendingTxid, 8);
    this.#disk.write('dirty:header', this.#fd, header, 0);
  }

  #load(): void {
    const size = this.#disk.size(this.#fd);
    if (size < HEADER_SIZE) return;
    const bytes = Buffer.alloc(Math.min(size, HEADER_SIZE + RECORDS_MAX * RECORD_SIZE));
    this.#disk.read(this.#fd, bytes, 0);
    this.#generation = bytes.readUInt32LE(0);
    this.#pendingTxid = bytes.readBigUInt64LE(8);
    for (let at = HEADER_SIZE; at + RECORD_SIZE <= bytes.length; at += RECORD_SIZE) {
      if (bytes.readUInt32LE(at) !== this.#generation) break;
      this.#recordCount++;
      const [first, count] = [bytes.readUInt32LE(at + 4), bytes.readUInt32LE(at + 8)];
      this.#isUnknown ||= first === 0 || this.#pages.size + count > PAGES_MAX;
      for (let pgno = first; !this.#isUnknown && pgno < first + count; pgno++) this.#pages.add(pgno);
    }
    if (this.#recordCount >= RECORDS_MAX) this.#isUnknown = true;
    if (this.#isUnknown) this.#setUnknown();
  }
}
