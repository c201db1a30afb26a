import {assert, unreachable} from '../../lib/assert.ts';
import type {Disk} from '../../lib/disk.ts';
import type {LockBytes} from '../../sqlite/lock-bytes.ts';
import {DatabaseLocks} from './database-locks.ts';
import {ApplyError} from './error.ts';
import {FollowerFiles} from './follower-files.ts';
import {FollowerWal} from './follower-wal.ts';
import {hasHotJournal, rollBackJournal} from './hot-journal.ts';
import type {Applied, ApplyResult, KernelCache, PageTransaction, WalPosition} from './page-transaction.ts';
import {ReaderWait} from './reader-wait.ts';
import {RollbackWriter} from './rollback-writer.ts';

export interface FollowerDatabaseOptions {
  readonly disk: Disk;
  /** Path of the database file in the data directory. */
  readonly backing: string;
  /** Path of the same file through the mount; the same as `backing` where there is none. */
  readonly mounted: string;
  readonly cache: KernelCache;
  readonly lockBytes: LockBytes;
  /** 'normal' flushes to the disk where SQLite with synchronous=NORMAL would, 'off' nowhere. */
  readonly sync: 'normal' | 'off';
  /** A random unsigned 32-bit number, for salts and nonces. */
  readonly randomU32: () => number;
  /** Milliseconds of a clock that never goes back. */
  readonly nowMs: () => number;
  /**
   * Stops the thread for some milliseconds; used only while an app keeps the follower from its locks at
   * `open`.
   */
  readonly sleep: (ms: number) => void;
  /**
   * Room to gather bytes in, 128 KiB or more; all databases of a thread may have the same. Default 1 MiB of
   * its own.
   */
  readonly buffer?: Uint8Array;
  /** For how long `open` tries to get its locks. Default 200. */
  readonly lockTimeoutMs?: number;
  /** Mode of a database file that the first transaction makes. Default 0o644. */
  readonly createMode?: number;
  /**
   * Frames in the WAL, not yet copied to the database file, that make `isCheckpointDue` true. Default 1000.
   */
  readonly checkpointFrameCount?: number;
  /**
   * A WAL larger than this many bytes begins anew as soon as readers can be made to let it. Default 64 MiB.
   */
  readonly walSizeMax?: number;
}

const LEAVE_WAL_INTERVAL_MS = 1000;

/** What `open` found. */
export interface FollowerRecovery {
  /** A hot journal was rolled back: the last transaction that was applied, or begun, may be undone. */
  readonly isRolledBack: boolean;
}

type State =
  | {readonly at: 'absent'}
  | {readonly at: 'rollback'; readonly locks: DatabaseLocks}
  | {readonly at: 'wal'; readonly locks: DatabaseLocks; readonly wal: FollowerWal}
  | {readonly at: 'closed'};

/**
 * A database that replicated transactions are written to while other processes read it. To them the follower
 * is one more SQLite process, and the only one that may write: it holds SHARED, and WRITE and CKPT of the WAL
 * or RESERVED, from `open` to `release`. All calls are synchronous, and only one thread makes them.
 *
 * How the file is written (the *state*) and what its page 1 says (`journalMode`) may differ for a time: apps
 * that opened it in WAL mode hold SHARED for as long as they are open, and only when none does can the WAL
 * go. Until then transactions of a primary in rollback mode are appended to the WAL here, which SQLite reads
 * all the same, since it goes by the `-wal` file's existence.
 */
export class FollowerDatabase {
  readonly #options: FollowerDatabaseOptions;
  readonly #files: FollowerFiles;
  /** With PENDING nobody new begins to read: as long as a writer's usual busy timeout, no longer. */
  readonly #exclusiveWait: ReaderWait;
  /** While nothing is appended, new readers don't use the WAL, and soon nobody does. */
  readonly #restartWait: ReaderWait;
  #state: State = {at: 'absent'};
  #readVersion = 0;
  #leaveWalAtMs = 0;
  #recovery: FollowerRecovery = {isRolledBack: false};

  private constructor(options: FollowerDatabaseOptions) {
    this.#options = options;
    this.#files = new FollowerFiles(options);
    const {nowMs} = options;
    this.#exclusiveWait = new ReaderWait({nowMs, insistMs: 1000, restMs: 200});
    this.#restartWait = new ReaderWait({nowMs, insistMs: 100, restMs: 2000});
  }

  /**
   * Opens the files, takes the locks and recovers what a crash has left. Makes nothing when there is no
   * database: the first transaction does. Throws `APPLY_LOCKED` when an app keeps a lock for longer than the
   * time-out.
   */
  static open(options: FollowerDatabaseOptions): FollowerDatabase {
    const database = new FollowerDatabase(options);
    if (database.#files.databaseExists) database.#openExisting();
    return database;
  }

  /** After `close`, and after a failure that only opening again can mend. */
  get isClosed(): boolean {
    return this.#state.at === 'closed';
  }

  /** What page 1 says, with all transactions applied. */
  get journalMode(): 'wal' | 'rollback' {
    return this.#readVersion === 2 ? 'wal' : 'rollback';
  }

  get recovery(): FollowerRecovery {
    return this.#recovery;
  }

  /** Where the WAL ends; undefined when there is none. */
  get walPosition(): WalPosition | undefined {
    return this.#state.at === 'wal' ? this.#state.wal.position : undefined;
  }

  /** In bytes; 0 for a database without pages. */
  get pageSize(): number {
    if (this.#state.at === 'absent' || this.#state.at === 'closed') return 0;
    const walPageSize = this.#state.at === 'wal' ? this.#state.wal.pageSize : 0;
    return walPageSize || this.#files.readHeader().pageSize;
  }

  /** Database size in pages. */
  get pageCount(): number {
    if (this.#state.at === 'absent' || this.#state.at === 'closed') return 0;
    const walPageCount = this.#state.at === 'wal' ? this.#state.wal.pageCount : 0;
    if (walPageCount > 0) return walPageCount;
    const {pageSize} = this;
    return pageSize === 0 ? 0 : Math.ceil(this.#files.databaseSize / pageSize);
  }

  /** True when `checkpointStep` should be called: after each transaction is often enough. */
  get isCheckpointDue(): boolean {
    if (this.#state.at !== 'wal') return false;
    return this.#state.wal.isCheckpointDue(this.#options.checkpointFrameCount ?? 1000);
  }

  /**
   * Makes the transaction the database's newest state, for all readers at once. Busy in rollback mode; in WAL
   * mode to leave it for another page size, and for a tenth of a second at most when the WAL has become too
   * large. When the disk refuses, its error is thrown and readers see the state before. Where that leaves the
   * files neither open nor whole, the database `isClosed`: opening it again recovers.
   *
   * Applying the newest one again changes nothing, an older one would mix two states. Who doesn't know after
   * a crash which of several were applied combines all that may be missing into one (the last version of each
   * page): from whatever state in between, that is one step forward.
   */
  apply(transaction: PageTransaction): ApplyResult {
    if (this.#state.at === 'absent') this.#create(transaction);
    const isLeft = this.#state.at === 'wal' && this.#mustLeaveWal(transaction) && this.#leaveWal();
    if (this.#state.at === 'wal' && !isLeft && !this.#canAppend(transaction)) return {busy: 'reader'};
    const state = this.#state;
    switch (state.at) {
      case 'wal':
        if (state.wal.isOversized && !this.#restartWal(state.wal)) return {busy: 'reader'};
        this.#note(state.wal.append(transaction));
        return 'applied';
      case 'rollback':
        return this.#applyRollback(state.locks, transaction);
      case 'absent':
      case 'closed':
        throw new ApplyError('APPLY_ABSENT', 'Cannot apply transaction: the database is not open');
      default:
        return unreachable(state);
    }
  }

  /** Fills `target`, which is one page long, with the page's newest content. */
  readPage(pgno: number, target: Uint8Array): void {
    const state = this.#state;
    if (state.at === 'wal' && state.wal.readPage(pgno, target)) return;
    if (state.at === 'absent' || state.at === 'closed') {
      throw new ApplyError('APPLY_ABSENT', 'Cannot read page: the database is not open', {pgno});
    }
    const count = this.#files.readDatabase(target, (pgno - 1) * target.length);
    if (count < target.length) {
      throw new ApplyError('APPLY_CORRUPT', 'Cannot read page: the database file is too short', {
        pgno,
        count,
      });
    }
  }

  /**
   * Copies frames from the WAL to the database file for about `budgetMs`; true when there is no more to do
   * for now: all is copied, or a reader needs the rest to stay. Transactions may be applied between steps.
   */
  checkpointStep(budgetMs: number): boolean {
    if (this.#state.at !== 'wal') return true;
    const end = this.#options.nowMs() + budgetMs;
    return this.#state.wal.checkpointStep(() => this.#options.nowMs() >= end);
  }

  /** Copies all that readers allow, and begins the WAL anew if that was all and none of them uses it. */
  checkpoint(): {readonly frames: number; readonly backfilled: number; readonly restarted: boolean} {
    if (this.#state.at !== 'wal') return {frames: 0, backfilled: 0, restarted: false};
    const {wal} = this.#state;
    const frames = wal.position.mxFrame;
    while (!wal.checkpointStep(() => false));
    const backfilled = wal.backfilledFrameCount;
    return {frames, backfilled, restarted: wal.restart()};
  }

  /** Makes all that has been applied durable. */
  sync(): void {
    if (this.#state.at === 'wal') this.#state.wal.sync();
    if (this.#state.at === 'rollback') this.#files.syncDatabase('follower:sync');
  }

  /**
   * Hands the database over to apps, at promotion: as if a SQLite process had closed it without a checkpoint.
   * The locks go; whoever waits in a busy handler writes on.
   */
  release(): void {
    this.close();
  }

  /** Lets go of everything. Nothing is checkpointed, nothing is lost. */
  close(): void {
    if (this.#state.at === 'wal') this.#state.wal.close();
    this.#files.closeDatabase();
    this.#state = {at: 'closed'};
  }

  // --- Opening ---

  #openExisting(createMode?: number): void {
    try {
      this.#files.openDatabase(createMode);
      const locks = new DatabaseLocks(this.#files.mountedFd, this.#options.lockBytes);
      this.#lock('SHARED', () => locks.tryShared());
      this.#recoverJournal(locks);
      if (this.#isWal()) {
        // The WAL's writer needs no RESERVED, but it kept other writers out while we looked.
        const wal = this.#openWal();
        locks.dropReserved();
        this.#state = {at: 'wal', locks, wal};
      } else {
        this.#state = {at: 'rollback', locks};
      }
      this.#readVersion = this.#readEffectiveVersion();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Takes RESERVED, and rolls back a hot journal before: a reader that finds RESERVED taken believes the
   * database, so as long as there is a hot journal it must be EXCLUSIVE that it finds.
   */
  #recoverJournal(locks: DatabaseLocks): void {
    const files = this.#files;
    if (hasHotJournal(files)) this.#lock('EXCLUSIVE', () => locks.tryExclusive());
    this.#lock('RESERVED', () => locks.tryReserved());
    // A writer may have died between the two lines above.
    if (hasHotJournal(files)) {
      this.#lock('EXCLUSIVE', () => locks.tryExclusive());
      rollBackJournal(files, this.#options.lockBytes);
      this.#recovery = {isRolledBack: true};
    }
    locks.downgrade();
  }

  /** As SQLite decides: by the file's header, or because a `-wal` is there, unless there are no pages. */
  #isWal(): boolean {
    const files = this.#files;
    if (files.databaseSize === 0) {
      if (files.companionSize('-wal') >= 0) files.unlinkCompanion('follower-wal:unlink-stale', '-wal');
      return false;
    }
    return files.companionSize('-wal') >= 0 || files.readHeader().readVersion === 2;
  }

  #openWal(): FollowerWal {
    return FollowerWal.open({
      files: this.#files,
      lockBytes: this.#options.lockBytes,
      randomU32: this.#options.randomU32,
      walSizeMax: this.#options.walSizeMax ?? 64 * 1024 * 1024,
      retry: attempt => this.#retry(attempt),
    });
  }

  #readEffectiveVersion(): number {
    const {pageSize} = this;
    if (pageSize === 0 || this.pageCount === 0) return 0;
    const page = new Uint8Array(pageSize);
    this.readPage(1, page);
    return page[19];
  }

  #lock(lock: string, attempt: () => boolean): void {
    if (this.#retry(attempt)) return;
    throw new ApplyError('APPLY_LOCKED', `Cannot follow database: ${lock} is locked by another process`, {
      lock,
    });
  }

  #retry(attempt: () => boolean): boolean {
    const {nowMs, sleep, lockTimeoutMs = 200} = this.#options;
    const end = nowMs() + lockTimeoutMs;
    while (!attempt()) {
      if (nowMs() >= end) return false;
      sleep(1);
    }
    return true;
  }

  // --- Applying ---

  /** Makes an empty database file; its first pages come by the rollback journal, like any others. */
  #create(transaction: PageTransaction): void {
    assert(transaction.commit > 0, 'a transaction that makes a database has pages');
    this.#openExisting(this.#options.createMode ?? 0o644);
  }

  #note(applied: Applied): void {
    if (applied.readVersion !== undefined) this.#readVersion = applied.readVersion;
  }

  #canAppend(transaction: PageTransaction): boolean {
    return transaction.commit > 0 && transaction.pageSize === this.pageSize;
  }

  /**
   * A transaction with another page size can't do without. Otherwise it's for the file to be what its page 1
   * says, and tried once a second: each attempt keeps readers from opening the database for a moment.
   */
  #mustLeaveWal(transaction: PageTransaction): boolean {
    if (!this.#canAppend(transaction)) return true;
    if (this.#readVersion === 2 || this.#options.nowMs() < this.#leaveWalAtMs) return false;
    this.#leaveWalAtMs = this.#options.nowMs() + LEAVE_WAL_INTERVAL_MS;
    return true;
  }

  /**
   * Readers that overlap could keep a WAL from ever beginning anew. So when it has become too large,
   * transactions wait for a moment until the last reader of it is done. False: not yet.
   */
  #restartWal(wal: FollowerWal): boolean {
    if (!wal.restart()) {
      if (!this.#restartWait.doesInsist()) return true;
      while (!wal.checkpointStep(() => false));
      if (!wal.restart()) return false;
    }
    this.#restartWait.done();
    return true;
  }

  /**
   * Copies the whole WAL into the database file and removes it; false when somebody has the database open.
   */
  #leaveWal(): boolean {
    assert(this.#state.at === 'wal', 'only a database in WAL mode can leave it');
    const {locks, wal} = this.#state;
    // No PENDING is kept: connections in WAL mode hold SHARED while they are open, perhaps for days.
    if (!locks.tryExclusive()) {
      locks.downgrade();
      return false;
    }
    while (!wal.checkpointStep(() => false));
    assert(wal.pendingFrameCount === 0, 'nobody holds a checkpoint back while the lock is EXCLUSIVE');
    locks.tryReserved();
    // Should removing fail, the lock stays EXCLUSIVE, and the next attempt removes what is left.
    this.#state = {at: 'rollback', locks};
    wal.remove();
    return true;
  }

  #applyRollback(locks: DatabaseLocks, transaction: PageTransaction): ApplyResult {
    if (!locks.tryExclusive()) {
      if (!this.#exclusiveWait.doesInsist()) locks.downgrade();
      return {busy: 'reader'};
    }
    this.#exclusiveWait.done();
    try {
      if (this.#files.companionSize('-wal') >= 0)
        this.#files.unlinkCompanion('follower-wal:unlink-stale', '-wal');
      const {lockBytes, randomU32} = this.#options;
      this.#note(new RollbackWriter({files: this.#files, lockBytes, randomU32}).apply(transaction));
      if (this.#readVersion === 2) this.#enterWal(locks);
    } catch (error) {
      // A journal that could not be rolled back stays hot, as after a crash: whoever comes must roll it back or fail.
      if (error instanceof ApplyError && error.code === 'APPLY_BROKEN') this.close();
      else locks.downgrade();
      throw error;
    }
    locks.downgrade();
    return 'applied';
  }

  /** The database file says WAL now, and the lock is EXCLUSIVE: nobody comes before us. */
  #enterWal(locks: DatabaseLocks): void {
    try {
      const wal = this.#openWal();
      locks.dropReserved();
      this.#state = {at: 'wal', locks, wal};
    } catch (error) {
      // Neither mode is right any more: only opening again can tell.
      this.close();
      throw new ApplyError('APPLY_BROKEN', 'Cannot open the WAL that page 1 asks for', {}, error);
    }
  }
}
