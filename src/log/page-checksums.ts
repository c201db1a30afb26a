import {constants} from 'node:fs';
import {dirname} from 'node:path';
import {assert} from '../lib/assert.ts';
import type {Disk} from '../lib/disk.ts';
import {xorChecksum} from '../ltx/checksum.ts';
import {defaultLockPgno} from '../ltx/header.ts';
import {
  CHECKSUM_FLAG,
  type Checksum,
  EMPTY_POSITION,
  equalPositions,
  type Position,
} from '../ltx/position.ts';
import {ChecksumChunks} from './checksum-chunks.ts';
import {
  CHECKSUM_HEADER_SIZE,
  type ChecksumHeader,
  decodeChecksumHeader,
  encodeChecksumHeader,
} from './checksum-header.ts';
import {ChecksumUndo} from './checksum-undo.ts';

const ENTRIES_PER_CHUNK = 4096;
const CLEAN_CHUNK_COUNT_MAX = 16;
const DIRTY_CHUNK_COUNT_MAX = 64;

/** Where in the log the table stands. */
export interface ChecksumStamp {
  readonly position: Position;
  readonly term: bigint;
}

export interface PageChecksumsOptions {
  readonly disk: Disk;
  readonly path: string;
  /** Number of the page that has no checksum, where the pending byte is not at its usual place. */
  readonly lockPgno?: (pageSize: number) => number;
  /**
   * Makes the log durable up to all that has been set, so that entries may be written before the next flush when too many
   * chunks are dirty. Without it dirty chunks wait for the flush.
   */
  readonly syncLog?: () => void;
  /** Entries, of 8 bytes, that are read and written together. */
  readonly entriesPerChunk?: number;
  readonly cleanChunkCountMax?: number;
  readonly dirtyChunkCountMax?: number;
}

/** `missing`: nothing on disk can be trusted, set every page. `present`: the file is good together with the log. */
export type PageChecksumsState = 'missing' | 'present';

/** A flush in steps, for callers that sync on another thread. After an error or `abandon` it must not go on. */
export interface ChecksumFlush {
  /** Second, when the log is durable up to the stamp: write the entries, then fdatasync `fd()`. */
  writeEntries(): void;
  /** Third: write the header, then fdatasync `fd()` again. */
  writeHeader(): void;
  /** Last: the stamp is the durable position now. */
  done(): void;
  /** What was not written is dirty again. */
  abandon(): void;
  /** The file's descriptor, good once `writeEntries` was called. */
  fd(): number;
}

interface Savepoint {
  readonly pageSize: number;
  readonly pageCount: number;
  readonly checksum: Checksum;
}

/**
 * One checksum per page of a database, 8 bytes each, in a file, and their rolling sum.
 *
 * The file's header says which position the entries stand for, but some of them may be newer: entries are written, and
 * synced, before the header. That is sound as long as the log holds every transaction after the header's
 * position, for replaying those (`replayChecksums`) sets all that may be newer. Hence three rules for the caller: the log
 * is durable up to everything set before entries are written; retention keeps the log from `durablePosition` on; and
 * before records are cut off the log, `invalidate`, or flush what was set for them, which no longer agrees with the log then.
 */
export class PageChecksums {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #lockPgno: (pageSize: number) => number;
  readonly #syncLog: (() => void) | undefined;
  readonly #dirtyChunkCountMax: number;
  readonly #chunks: ChecksumChunks;
  readonly #undo = new ChecksumUndo();
  #fd: number | undefined;
  #durable: ChecksumHeader | undefined;
  #pageSize = 0;
  #pageCount = 0;
  #checksum: Checksum = CHECKSUM_FLAG;
  #savepoint: Savepoint | undefined;
  #isChanged = false;
  /** Raised by `invalidate`: a flush that was prepared before must not make the file valid again. */
  #validity = 0;

  /** Reads the header of `path`; makes no file. */
  static open(options: PageChecksumsOptions): PageChecksums {
    const fd = openIfThere(options.disk, options.path);
    if (fd === undefined) return new PageChecksums(options, undefined, undefined);
    const sector = new Uint8Array(CHECKSUM_HEADER_SIZE);
    const size = options.disk.read(fd, sector, 0);
    return new PageChecksums(options, fd, decodeChecksumHeader(sector.subarray(0, size)));
  }

  private constructor(
    options: PageChecksumsOptions,
    fd: number | undefined,
    header: ChecksumHeader | undefined,
  ) {
    this.#disk = options.disk;
    this.#path = options.path;
    this.#lockPgno = options.lockPgno ?? defaultLockPgno;
    this.#syncLog = options.syncLog;
    this.#dirtyChunkCountMax = options.dirtyChunkCountMax ?? DIRTY_CHUNK_COUNT_MAX;
    this.#chunks = new ChecksumChunks(options.disk, {
      fd,
      entryCount: header?.pageCount ?? 0,
      entriesPerChunk: options.entriesPerChunk ?? ENTRIES_PER_CHUNK,
      cleanCountMax: options.cleanChunkCountMax ?? CLEAN_CHUNK_COUNT_MAX,
    });
    this.#fd = fd;
    this.#durable = header;
    this.#isChanged = header === undefined;
    if (header === undefined) return;
    this.#pageSize = header.pageSize;
    this.#pageCount = header.pageCount;
    this.#checksum = header.position.checksum;
  }

  get state(): PageChecksumsState {
    return this.#durable === undefined ? 'missing' : 'present';
  }

  /** What the header on disk says. The log must reach back to it. */
  get durablePosition(): Position {
    return this.#durable?.position ?? EMPTY_POSITION;
  }

  /** The term that goes with `durablePosition`. */
  get durableTerm(): bigint {
    return this.#durable?.term ?? 0n;
  }

  get pageCount(): number {
    return this.#pageCount;
  }

  /** Bytes per page; 0 before the first page size was set. */
  get pageSize(): number {
    return this.#pageSize;
  }

  /** The rolling checksum over all pages but the lock page. */
  get checksum(): Checksum {
    return this.#checksum;
  }

  /** Chunks that wait for a flush. */
  get dirtyChunkCount(): number {
    return this.#chunks.dirtyCount;
  }

  /** The checksum of a page; 0 for the lock page, pages that were never set and those past the end. */
  get(pgno: number): Checksum | 0n {
    assert(pgno >= 1, 'a page number is 1-based');
    return pgno > this.#pageCount ? 0n : (this.#chunks.read(pgno - 1) as Checksum | 0n);
  }

  /** Sets the checksum of a page, which may lie past the end: then the database grows to it. */
  set(pgno: number, checksum: Checksum): void {
    assert(this.#pageSize > 0, 'the page size is set before pages are');
    assert(pgno !== this.#lockPgno(this.#pageSize), 'the lock page has no checksum');
    const old = this.get(pgno);
    if (old === checksum) return;
    if (this.#savepoint !== undefined) this.#undo.push(pgno, old);
    this.#chunks.write(pgno - 1, checksum);
    this.#checksum = xorChecksum(xorChecksum(this.#checksum, old as Checksum), checksum);
    if (pgno > this.#pageCount) this.#pageCount = pgno;
    this.#isChanged = true;
    if (this.#chunks.dirtyCount > this.#dirtyChunkCountMax) this.#writeEarly();
  }

  /** Takes away all pages after `pageCount`. */
  truncate(pageCount: number): void {
    assert(pageCount <= this.#pageCount, 'truncating makes nothing longer');
    if (pageCount === this.#pageCount) return;
    for (let pgno = this.#pageCount; pgno > pageCount; pgno--) {
      const old = this.get(pgno);
      if (old === 0n) continue;
      if (this.#savepoint !== undefined) this.#undo.push(pgno, old);
      this.#checksum = xorChecksum(this.#checksum, old);
    }
    this.#chunks.cutAfter(pageCount);
    this.#pageCount = pageCount;
    this.#isChanged = true;
  }

  /** Sets the number of pages, up or down. Pages that are new and not set yet count nothing. */
  resize(pageCount: number): void {
    if (pageCount < this.#pageCount) this.truncate(pageCount);
    else if (pageCount > this.#pageCount) {
      this.#pageCount = pageCount;
      this.#isChanged = true;
    }
  }

  /** Sets the page size. A change of it takes all pages away. */
  setPageSize(pageSize: number): void {
    if (pageSize === this.#pageSize) return;
    this.truncate(0);
    this.#pageSize = pageSize;
    this.#isChanged = true;
  }

  /** From here on everything can be taken back. Costs 12 bytes of memory a page; nothing is written early. */
  begin(): void {
    assert(this.#savepoint === undefined, 'one transaction is open at a time');
    this.#savepoint = {pageSize: this.#pageSize, pageCount: this.#pageCount, checksum: this.#checksum};
  }

  /** Keeps what was set since `begin`. */
  commit(): void {
    assert(this.#savepoint !== undefined, 'a transaction is open');
    this.#savepoint = undefined;
    this.#undo.clear();
  }

  /** Takes back what was set since `begin`. */
  abort(): void {
    const savepoint = this.#savepoint;
    assert(savepoint !== undefined, 'a transaction is open');
    this.#savepoint = undefined;
    this.#undo.unwind((pgno, checksum) => this.#chunks.write(pgno - 1, checksum));
    this.#pageSize = savepoint.pageSize;
    this.#pageCount = savepoint.pageCount;
    this.#checksum = savepoint.checksum;
  }

  /** The rolling checksum computed from all entries anew: one pass over the file. It differs from `checksum` if an entry is wrong. */
  recompute(): Checksum {
    return xorChecksum(CHECKSUM_FLAG, this.#chunks.xor(this.#pageCount) as Checksum);
  }

  /** Replaces the rolling checksum by the one known from the log: after a replay the sum over old entries means nothing. */
  adoptChecksum(checksum: Checksum): void {
    if (checksum === this.#checksum) return;
    this.#checksum = checksum;
    this.#isChanged = true;
  }

  /** Makes everything durable as of `stamp`, where the log stands and is durable. Does nothing when it is already. */
  flush(stamp: ChecksumStamp): void {
    if (
      !this.#isChanged &&
      this.#durable?.term === stamp.term &&
      equalPositions(this.#durable.position, stamp.position)
    )
      return;
    const flush = this.prepareFlush(stamp);
    flush.writeEntries();
    this.#disk.sync('checksums:entries-sync', flush.fd());
    flush.writeHeader();
    this.#disk.sync('checksums:header-sync', flush.fd());
    flush.done();
  }

  /**
   * First step of a flush: takes everything as it is now, at `stamp`, the log's last transaction. The log need not be durable
   * yet. Changes may go on; they belong to the next flush. One flush at a time.
   */
  prepareFlush({position, term}: ChecksumStamp): ChecksumFlush {
    assert(this.#savepoint === undefined, 'no transaction is open');
    assert(position.checksum === this.#checksum, 'the table stands at the position that it is flushed for');
    const header: ChecksumHeader = {pageSize: this.#pageSize, pageCount: this.#pageCount, position, term};
    this.#chunks.freeze();
    this.#isChanged = false;
    const validity = this.#validity;
    const abandon = () => {
      this.#isChanged = true;
      this.#chunks.unfreeze();
    };
    return {
      fd: () => this.#openFile(),
      writeEntries: () => orElse(abandon, () => this.#chunks.writeFrozen(this.#openFile())),
      writeHeader: () => {
        assert(validity === this.#validity, 'a flush ends before the file is declared void');
        orElse(abandon, () => this.#writeHeader(encodeChecksumHeader(header)));
      },
      done: () => {
        this.#durable = header;
      },
      abandon,
    };
  }

  /**
   * Declares the file void, durably: until the next flush an `open` will find it missing. The entries in memory stay. A flush
   * in steps that is under way must be abandoned first.
   */
  invalidate(): void {
    this.#isChanged = true;
    this.#validity += 1;
    if (this.#durable === undefined) return;
    this.#writeHeader(new Uint8Array(CHECKSUM_HEADER_SIZE));
    this.#disk.sync('checksums:header-sync', this.#openFile());
    this.#durable = undefined;
  }

  /** `invalidate`, and no pages: to set all of them anew. */
  clear(): void {
    assert(this.#savepoint === undefined, 'no transaction is open');
    this.invalidate();
    this.#chunks.cutAfter(0);
    this.#pageCount = 0;
    this.#checksum = CHECKSUM_FLAG;
  }

  /** Closes the file without writing what is dirty. */
  close(): void {
    if (this.#fd !== undefined) this.#disk.close(this.#fd);
    this.#fd = undefined;
  }

  #writeHeader(sector: Uint8Array): void {
    this.#disk.write('checksums:header-write', this.#openFile(), sector, 0);
  }

  /** Without a header on disk, entries mean nothing yet, and may be written as they come. */
  #writeEarly(): void {
    if (this.#savepoint !== undefined || this.#chunks.isFrozen) return;
    if (this.#durable !== undefined) {
      if (this.#syncLog === undefined) return;
      this.#syncLog();
    }
    this.#chunks.freeze();
    orElse(
      () => this.#chunks.unfreeze(),
      () => this.#chunks.writeFrozen(this.#openFile()),
    );
  }

  #openFile(): number {
    if (this.#fd !== undefined) return this.#fd;
    this.#fd = this.#disk.open('checksums:create', this.#path, constants.O_RDWR | constants.O_CREAT);
    this.#disk.syncDirectory('checksums:sync-directory', dirname(this.#path));
    return this.#fd;
  }
}

function openIfThere(disk: Disk, path: string): number | undefined {
  try {
    return disk.open('checksums:open', path, constants.O_RDWR);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function orElse(undo: () => void, step: () => void): void {
  try {
    step();
  } catch (error) {
    undo();
    throw error;
  }
}
