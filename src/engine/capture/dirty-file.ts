import type {Disk} from '../../lib/disk.ts';
import type {BackingFiles} from './backing-files.ts';
import {DirtyPages} from './dirty-pages.ts';
import {isFileWhole} from './plans.ts';
import type {WalTracker} from './wal-tracker.ts';

export interface DirtyFileOptions {
  readonly files: BackingFiles;
  readonly tracker: WalTracker;
  readonly nowMs: () => number;
  /** As the log has it, 0 while it has none. */
  readonly pageSize: () => number;
}

/** More pages than this that a cut takes from the file are not noted one by one. */
const PAGES_NOTED_MAX = 65_536;
/** A file without a journal that was written is captured when nobody has written to it for this long. */
const QUIET_MS = 250;
const PAGE_SIZE_GUESSED = 4096;

/** What was written to the database file and is not captured yet: in a list on disk as soon as the database has a log. */
export class DirtyFile {
  /** The end of a transaction came, and was no time to capture it, or that failed. */
  isOwed = false;
  readonly #options: DirtyFileOptions;
  #pages: DirtyPages | undefined;
  #isUnstored = false;
  #writtenMs = 0;

  constructor(options: DirtyFileOptions) {
    this.#options = options;
  }

  /** The list, or undefined while the database has no log. */
  get pages(): DirtyPages | undefined {
    return this.#pages;
  }

  get isAny(): boolean {
    return this.#isUnstored || (this.#pages?.isAny ?? false);
  }

  /** About how many pages are to be looked at. */
  get count(): number {
    return this.#pages === undefined || this.#pages.isUnknown
      ? this.#options.files.mainSize / PAGE_SIZE_GUESSED
      : this.#pages.count;
  }

  /** The page may hold what is not committed. */
  has(pgno: number): boolean {
    return this.#isUnstored || (this.#pages?.has(pgno) ?? false);
  }

  open(disk: Disk, path: string): DirtyPages {
    this.#pages = DirtyPages.open(disk, path);
    return this.#pages;
  }

  /** What was written before there was a list goes into it. */
  store(): void {
    if (this.#isUnstored) this.#pages?.addUnknown();
    this.#isUnstored = false;
  }

  /** Something was written, nobody knows what. */
  noteUnknown(): void {
    this.#writtenMs = this.#options.nowMs();
    if (this.#pages === undefined) this.#isUnstored = true;
    else this.#pages.addUnknown();
  }

  /** Bytes are about to be written outside of WAL mode. */
  noteWrite(offset: number, size: number): void {
    this.isOwed = false;
    if (this.#pages === undefined) {
      this.noteUnknown();
      return;
    }
    this.#writtenMs = this.#options.nowMs();
    this.#pages.addBytes(offset, size, this.#options.pageSize());
  }

  /**
   * Bytes are about to be written while the WAL has frames. A checkpoint writes pages that the WAL holds, and what it
   * writes is in the log; other pages are somebody else's.
   */
  noteWriteUnderWal(offset: number, size: number): void {
    const {tracker} = this.#options;
    const {pageSize} = tracker;
    const end = Math.floor((offset + Math.max(size, 1) - 1) / pageSize) + 2;
    let first = Math.floor(offset / pageSize) + 1;
    for (let pgno = first; pgno <= end; pgno++) {
      if (pgno < end && !tracker.holds(pgno)) continue;
      if (pgno > first) this.noteWrite((first - 1) * pageSize, (pgno - first) * pageSize);
      first = pgno + 1;
    }
  }

  /** The file is about to be cut to `size` while the WAL has frames: a checkpoint cuts what lies behind the last commit. */
  noteCutUnderWal(size: number): void {
    const {pageSize, lastCommit} = this.#options.tracker;
    const cut = lastCommit * pageSize - size;
    if (cut > PAGES_NOTED_MAX * pageSize) this.noteUnknown();
    else if (cut > 0) this.noteWriteUnderWal(size, cut);
  }

  /** Whether nobody has written for a while, nobody is about to, and the file is no half of one. */
  isQuiet(isWriteLocked: (ino: number) => boolean): boolean {
    const {files, nowMs} = this.#options;
    if (nowMs() - this.#writtenMs < QUIET_MS) return false;
    return isFileWhole(files) && !isWriteLocked(files.mainIno);
  }

  clear(): void {
    this.#pages?.clear();
    this.#isUnstored = false;
  }

  close(): void {
    this.#pages?.close();
    this.#pages = undefined;
  }
}
