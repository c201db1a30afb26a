import {closeSync} from 'node:fs';
import {writeU32be} from '../../lib/bytes.ts';
import {JOURNAL_HEADER_SIZE, journalChecksum} from '../../sqlite/journal.ts';
import type {LockBytes} from '../../sqlite/lock-bytes.ts';
import {ApplyError} from './error.ts';
import type {FollowerFiles} from './follower-files.ts';
import {hasHotJournal, rollBackJournal} from './hot-journal.ts';
import {type Applied, checkedPages, type PageTransaction} from './page-transaction.ts';

const SECTOR_SIZE = 512;
const JOURNAL_MAGIC = Uint8Array.of(0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7);

export interface RollbackWriterOptions {
  readonly files: FollowerFiles;
  readonly lockBytes: LockBytes;
  readonly randomU32: () => number;
}

/**
 * Writes a transaction into the database file itself, as SQLite's pager does in journal_mode=DELETE. The
 * caller holds the EXCLUSIVE lock.
 *
 * Why a real journal, though the transaction could be applied again from the log: when the daemon is killed
 * in the middle, its locks are gone in the same moment, and readers are let in before anything of ours runs.
 * What keeps them from a torn database is a hot journal, which any SQLite knows: it rolls back, or it fails.
 * There is no short cut for small transactions: even one page is several requests to the disk.
 */
export class RollbackWriter {
  readonly #files: FollowerFiles;
  readonly #lockBytes: LockBytes;
  readonly #randomU32: () => number;

  constructor(options: RollbackWriterOptions) {
    this.#files = options.files;
    this.#lockBytes = options.lockBytes;
    this.#randomU32 = options.randomU32;
  }

  /**
   * Applies `transaction`, or throws what the disk said and leaves the database as it was. Throws
   * `APPLY_BROKEN` when it could not be put back: the hot journal is then still there, and must be rolled back
   * before anything else is written.
   */
  apply(transaction: PageTransaction): Applied {
    try {
      this.#writeJournal(transaction);
      const applied = this.#writePages(transaction);
      this.#files.syncDatabase('follower-rollback-apply:sync');
      // Until now a death undoes the transaction, from now on it stays: this is the commit.
      this.#files.unlinkCompanion('follower-rollback-apply:commit', '-journal');
      return applied;
    } catch (error) {
      this.#undo(error);
      throw error;
    }
  }

  #undo(cause: unknown): void {
    try {
      if (hasHotJournal(this.#files)) rollBackJournal(this.#files, this.#lockBytes);
      else if (this.#files.companionSize('-journal') >= 0) {
        this.#files.unlinkCompanion('follower-rollback-apply:unlink', '-journal');
      }
    } catch {
      throw new ApplyError('APPLY_BROKEN', 'Cannot undo a transaction that could not be applied', {}, cause);
    }
  }

  /**
   * Saves the pages that will be overwritten or cut off. The database has not been touched when this throws.
   */
  #writeJournal(transaction: PageTransaction): void {
    const files = this.#files;
    closeSync(files.openMountedCompanion('follower-journal:create', '-journal'));
    const fd = files.openCompanion('follower-journal:open', '-journal');
    try {
      files.disk.truncate('follower-journal:clear', fd, 0);
      const pageSize = files.readHeader().pageSize || transaction.pageSize;
      const pageCount = Math.ceil(files.databaseSize / pageSize);
      const journal = new JournalWriter({files, fd, pageSize, pageCount, nonce: this.#randomU32()});
      journal.begin();
      for (const pgno of pagesToSave(transaction, pageSize, pageCount)) {
        if (pgno !== this.#lockBytes.lockPgno(pageSize)) journal.save(pgno);
      }
      journal.finish();
      files.syncNames('follower-journal:sync-directory');
      files.cache.invalidate('journal'); // The kernel knows it as the empty file that was made through the mount.
    } finally {
      closeSync(fd);
    }
  }

  #writePages(transaction: PageTransaction): Applied {
    const {pageSize, commit} = transaction;
    const run = new PageRun(this.#files, pageSize);
    let readVersion: number | undefined;
    for (const {pgno, page} of checkedPages(transaction, this.#lockBytes.lockPgno(pageSize))) {
      if (pgno === 1) readVersion = page[19];
      run.add(pgno, page);
    }
    run.flush();
    this.#files.truncateDatabase('follower-rollback-apply:truncate', commit * pageSize);
    return {readVersion: commit === 0 ? 0 : readVersion};
  }
}

/** Numbers of the pages whose old content is lost by the transaction. */
function* pagesToSave(transaction: PageTransaction, pageSize: number, pageCount: number): Generator<number> {
  if (pageSize !== transaction.pageSize) {
    // Nothing stays where it was.
    for (let pgno = 1; pgno <= pageCount; pgno++) yield pgno;
    return;
  }
  for (const {pgno} of transaction.pages()) if (pgno <= Math.min(pageCount, transaction.commit)) yield pgno;
  for (let pgno = transaction.commit + 1; pgno <= pageCount; pgno++) yield pgno;
}

interface JournalWriterOptions {
  readonly files: FollowerFiles;
  readonly fd: number;
  readonly pageSize: number;
  /** Pages in the database before the transaction. */
  readonly pageCount: number;
  readonly nonce: number;
}

/** Writes a rollback journal of one segment (SQLite file format, 3 The Rollback Journal). */
class JournalWriter {
  readonly #options: JournalWriterOptions;
  readonly #buffer: Uint8Array;
  #used = 0;
  #position = 0;
  #recordCount = 0;

  constructor(options: JournalWriterOptions) {
    this.#options = options;
    this.#buffer = options.files.buffer;
  }

  /**
   * The header goes first with no records in it: as long as it says so there is nothing to roll back but the
   * size.
   */
  begin(): void {
    this.#buffer.fill(0, 0, SECTOR_SIZE);
    this.#fillHeader();
    this.#used = SECTOR_SIZE;
  }

  save(pgno: number): void {
    const {files, pageSize, nonce} = this.#options;
    const size = pageSize + 8;
    if (this.#used + size > this.#buffer.length) this.#flush();
    const page = this.#buffer.subarray(this.#used + 4, this.#used + 4 + pageSize);
    // A file that ends in the middle of a page is padded with zeros, as SQLite reads it.
    page.fill(0, files.readDatabase(page, (pgno - 1) * pageSize));
    writeU32be(this.#buffer, this.#used, pgno);
    writeU32be(this.#buffer, this.#used + 4 + pageSize, journalChecksum(nonce, page));
    this.#used += size;
    this.#recordCount++;
  }

  /**
   * Counts the records in the header and makes all durable at once: only then may the database be written. A loss of power
   * before that can leave records in any state, but then the database is what it was, and so is what passes their checksums.
   */
  finish(): void {
    const {files, fd} = this.#options;
    if (this.#position === 0) {
      this.#fillHeader();
      this.#flush();
    } else {
      this.#flush();
      this.#fillHeader();
      files.disk.write('follower-journal:header', fd, this.#buffer.subarray(0, JOURNAL_HEADER_SIZE), 0);
    }
    if (files.isSynced) files.disk.sync('follower-journal:sync', fd);
  }

  #fillHeader(): void {
    const {nonce, pageCount, pageSize} = this.#options;
    this.#buffer.set(JOURNAL_MAGIC);
    const words = [this.#recordCount, nonce, pageCount, SECTOR_SIZE, pageSize];
    for (const [i, word] of words.entries()) writeU32be(this.#buffer, 8 + 4 * i, word);
  }

  #flush(): void {
    const {files, fd} = this.#options;
    files.disk.write('follower-journal:write', fd, this.#buffer.subarray(0, this.#used), this.#position);
    this.#position += this.#used;
    this.#used = 0;
  }
}

/** Gathers pages that lie side by side, and writes them at once. */
class PageRun {
  readonly #files: FollowerFiles;
  readonly #pageSize: number;
  readonly #buffer: Uint8Array;
  #first = 1;
  #count = 0;

  constructor(files: FollowerFiles, pageSize: number) {
    this.#files = files;
    this.#pageSize = pageSize;
    this.#buffer = files.buffer;
  }

  add(pgno: number, page: Uint8Array): void {
    const isFull = (this.#count + 1) * this.#pageSize > this.#buffer.length;
    if (isFull || pgno !== this.#first + this.#count) this.flush();
    if (this.#count === 0) this.#first = pgno;
    this.#buffer.set(page, this.#count * this.#pageSize);
    this.#count++;
  }

  flush(): void {
    if (this.#count === 0) return;
    const bytes = this.#buffer.subarray(0, this.#count * this.#pageSize);
    this.#files.writeDatabase('follower-rollback-apply:write', bytes, (this.#first - 1) * this.#pageSize);
    this.#count = 0;
  }
}
