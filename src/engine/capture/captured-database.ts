import {randomBytes} from 'node:crypto';
import {mkdirSync} from 'node:fs';
import {join} from 'node:path';
import type {LogEntry} from '../../log/log-entry.ts';
import {PageHasher} from '../../ltx/checksum.ts';
import type {Flusher} from '../flusher.ts';
import {DatabaseStore, type StoreContext} from '../database-store.ts';
import {WaitList} from '../mount/database-hooks.ts';
import {BackingFiles} from './backing-files.ts';
import {DirtyPages} from './dirty-pages.ts';
import {type FileShape, fileShape, framesByPage, pageRange, pagesOfCommit, readFramePage, walPlace} from './plans.ts';
import {type PreparedRecord, prepareRecord, type Slices, type TransactionPlan} from './record-job.ts';
import {WalTracker, type WalTransaction} from './wal-tracker.ts';

/** What all captured databases of the node share. */
export interface CaptureContext extends StoreContext {
  readonly term: bigint;
  readonly flusher: Flusher;
  readonly nowMs: () => number;
  /** A database of this name has its first transaction: makes its ID known. */
  readonly register: (database: CapturedDatabase, id: string) => void;
  readonly committed: (database: CapturedDatabase, entry: LogEntry) => void;
  /** Serves the requests that waited for this. */
  readonly resume: (waits: WaitList) => void;
  readonly report: (database: CapturedDatabase, event: string, error: unknown) => void;
}

interface QueuedWork {
  /** What has to wait meanwhile. The WAL may always grow. */
  readonly holds: 'wal-overwrites' | 'file-writes';
  /** Whether the record is published when it is done, or by `publish` after the journal is gone. */
  readonly publishes: boolean;
  readonly start: () => Slices<PreparedRecord | undefined>;
}

/** Transactions of up to this many pages are captured at once, larger ones in slices between requests. */
const PAGES_AT_ONCE_MAX = 64;
/** Frames that are checked per turn while a large transaction comes in. */
const FRAMES_PER_TURN = 64;

/**
 * One database of which this node is the primary: notes what apps write to its files and puts each transaction into
 * the log. Which event means what is decided by `PrimaryFiles`; here is the state and the work.
 */
export class CapturedDatabase {
  name: string;
  readonly files: BackingFiles;
  readonly tracker: WalTracker;
  /** A rollback journal is open: the transaction ends with it. */
  isJournalActive = false;
  /** Page size that the journal's header told, 0 if none. */
  journalPageSize = 0;
  lastUsedMs: number;
  readonly waits = new WaitList();
  readonly #context: CaptureContext;
  readonly #hasher: PageHasher;
  readonly #undone = new Set<number>();
  readonly #queue: QueuedWork[] = [];
  #running: Slices<PreparedRecord | undefined> | undefined;
  #prepared: PreparedRecord | undefined;
  #store: DatabaseStore | undefined;
  #dirty: DirtyPages | undefined;
  #isDirtyUnstored = false;
  #failure: unknown;
  #isSyncing = false;
  #finalization: 'none' | 'working' | 'ready' = 'none';

  constructor(context: CaptureContext, name: string, path: string) {
    this.#context = context;
    this.#hasher = new PageHasher(context.crc64);
    this.name = name;
    this.files = new BackingFiles(path);
    this.tracker = new WalTracker(this.files.readWal);
    this.lastUsedMs = context.nowMs();
  }

  get id(): string | undefined {
    return this.#store?.id;
  }

  get store(): DatabaseStore | undefined {
    return this.#store;
  }

  get isBusy(): boolean {
    return this.#running !== undefined || this.#queue.length > 0;
  }

  get isDirty(): boolean {
    return this.#isDirtyUnstored || (this.#dirty?.isAny ?? false);
  }

  /** The page may hold what is not committed. */
  isPageDirty(pgno: number): boolean {
    return this.#isDirtyUnstored || (this.#dirty?.has(pgno) ?? false);
  }

  /** Why the last transactions could not be put into the log (a full disk), until they can. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Tells the failure to whom it concerns. It is over then, unless work that must be done still waits for it. */
  takeFailure<Result>(tell: (error: unknown) => Result): Result {
    const error = this.#failure;
    if (!this.isBusy) this.#failure = undefined;
    return tell(error);
  }

  /** The WAL holds what the database file does not: writes to the file are a checkpoint's. */
  get isWalActive(): boolean {
    return !this.isJournalActive && this.tracker.committedCount > 0;
  }

  /** Opens what the log knows of the database. */
  attach(id: string, isUnclean: boolean): DatabaseStore {
    const directory = join(this.#context.directory, id);
    mkdirSync(directory, {recursive: true, mode: 0o700});
    this.#dirty = DirtyPages.open(this.#context.disk, join(directory, 'dirty'));
    const unconfirmed = isUnclean && this.isJournalActive ? this.#dirty.pendingTxid : 0n;
    const store = DatabaseStore.open(this.#context, id, isUnclean, unconfirmed);
    this.#store = store;
    if (this.#isDirtyUnstored) this.#dirty.addUnknown();
    this.#isDirtyUnstored = false;
    return store;
  }

  get dirty(): DirtyPages | undefined {
    return this.#dirty;
  }

  /** Bytes of the database file are about to be written outside of WAL mode. */
  noteWrite(offset: number, size: number): void {
    const pageSize = this.#store?.checksums.pageSize ?? 0;
    if (this.#dirty === undefined) this.#isDirtyUnstored = true;
    else if (pageSize === 0) this.#dirty.addUnknown();
    else this.#addDirty(this.#dirty, offset, size, pageSize);
  }

  #addDirty(dirty: DirtyPages, offset: number, size: number, pageSize: number): void {
    const first = Math.floor(offset / pageSize) + 1;
    const last = Math.floor((offset + Math.max(size, 1) - 1) / pageSize) + 1;
    dirty.add(first, last - first + 1);
  }

  /** The -wal was written: queues the transactions that are complete now. Returns whether frames are left to check. */
  noteWal(undone: readonly number[]): boolean {
    for (const pgno of undone) this.#undone.add(pgno);
    for (;;) {
      const found = this.tracker.next(FRAMES_PER_TURN);
      if (found === undefined) return false;
      if (found === 'more') return true;
      this.#queueWal(found);
    }
  }

  #queueWal(transaction: WalTransaction): void {
    const undone = [...this.#undone];
    this.#undone.clear();
    this.#enqueue(
      {holds: 'wal-overwrites', publishes: true, start: () => this.#prepare(() => this.#walPlan(transaction, undone))},
      transaction.end - transaction.first + undone.length,
    );
  }

  /** Captures what was written to the database file. With `publishes` false, `publish` makes it visible. */
  captureFile(publishes: boolean): void {
    if (!publishes) this.#finalization = 'working';
    const pageCount = this.#dirty === undefined || this.#dirty.isUnknown ? this.files.mainSize / 4096 : this.#dirty.sorted().length;
    this.#enqueue({holds: 'file-writes', publishes, start: () => this.#prepare(() => this.#filePlan())}, pageCount);
  }

  /** Compares every page with what the log says and captures the differences. */
  captureAll(): void {
    this.#enqueue({holds: 'file-writes', publishes: true, start: () => this.#prepare(() => this.#scanPlan())}, Number.POSITIVE_INFINITY);
  }

  /**
   * After pages left the WAL by other ways than a checkpoint (somebody deleted it), the database file is older than the
   * log. Compares those pages; after a checkpoint there is no difference.
   */
  captureAfterWal(pgnos: readonly number[]): void {
    const sorted = [...new Set(pgnos)].sort((a, b) => a - b);
    this.#enqueue({holds: 'file-writes', publishes: true, start: () => this.#prepare(() => this.#pagesPlan(sorted))}, sorted.length);
  }

  /** How far the end of the transaction whose journal is about to go has come. */
  get finalization(): 'none' | 'working' | 'ready' {
    return this.#finalization;
  }

  /** The journal is gone: the transaction that `captureFile(false)` prepared is committed. */
  publish(): void {
    const prepared = this.#prepared;
    this.#prepared = undefined;
    this.#finalization = 'none';
    if (prepared !== undefined) this.#publish(prepared);
    this.#dirty?.clear();
    this.#isDirtyUnstored = false;
  }

  /** The journal stays after all: the transaction goes on, or is rolled back. */
  withdraw(): void {
    this.#prepared?.writer.abort();
    this.#prepared = undefined;
    this.#finalization = 'none';
  }

  /** Whether a write that would change what is still to be read has to wait. */
  isHeld(write: 'wal-overwrite' | 'file-write'): boolean {
    return write === 'wal-overwrite' ? this.isBusy : this.#queue.some(work => work.holds === 'file-writes');
  }

  /**
   * Before the WAL is started anew the log must be durable, since the WAL is what it could be rebuilt from. Returns
   * whether it is; if not, `waits` are resumed when it is.
   */
  isLogDurable(): boolean {
    const log = this.#store?.log;
    if (log === undefined || log.syncedTxid >= log.position.txid) return true;
    if (this.#isSyncing) return false;
    this.#isSyncing = true;
    const {txid} = log.position;
    const targets = [...log.syncTargets()];
    let left = targets.length;
    let failed = 0;
    const done = (errno: number) => {
      failed ||= errno;
      if (--left > 0) return;
      this.#isSyncing = false;
      if (failed === 0) log.markSynced(txid);
      else this.#context.report(this, 'log not flushed', new Error(`errno ${failed}`));
      this.#context.resume(this.waits);
    };
    for (const fd of targets) this.#context.flusher.flush({fd, isDataOnly: true, done});
    return false;
  }

  /** Works until `deadline` (performance.now()). Returns whether there is more to do. */
  work(deadline: number): boolean {
    if (this.noteWal([])) return true;
    while (this.isBusy) {
      if (!this.#step()) return false; // Failed: tried again when something is asked of the database.
      if (performance.now() >= deadline) break;
    }
    return this.isBusy;
  }

  /** Tries again what failed. */
  retry(): void {
    this.work(performance.now() + 1);
  }

  /** The content of a page as of the last commit that was seen, in whichever file it is. */
  readPage(pgno: number, target: Uint8Array): void {
    const frame = this.tracker.findFrame(pgno, this.tracker.committedCount);
    if (frame >= 0) readFramePage(this.files, frame, target);
    else this.files.readMainPage(pgno, target);
  }

  close(): void {
    this.files.close();
    this.#store?.close();
    this.#dirty?.close();
    this.#store = undefined;
    this.#dirty = undefined;
  }

  #enqueue(work: QueuedWork, pageCount: number): void {
    this.#queue.push(work);
    if (pageCount > PAGES_AT_ONCE_MAX || this.#queue.length > 1) return;
    while (this.isBusy && this.#step());
  }

  /** One slice. Returns false when the work failed and waits for `retry`. */
  #step(): boolean {
    const [work] = this.#queue;
    if (work === undefined) return true;
    try {
      this.#running ??= work.start();
      const result = this.#running.next();
      if (result.done !== true) return true;
      this.#finish(work, result.value);
      return true;
    } catch (error) {
      this.#running = undefined;
      const isNew = this.#failure === undefined;
      this.#failure = error;
      if (!work.publishes) {
        this.#queue.shift();
        this.#finalization = 'none';
      }
      if (isNew) this.#context.report(this, 'transaction not logged', error);
      this.#context.resume(this.waits);
      return false;
    }
  }

  #finish(work: QueuedWork, prepared: PreparedRecord | undefined): void {
    this.#running = undefined;
    this.#queue.shift();
    if (this.#failure !== undefined) this.#context.report(this, 'transactions logged again', undefined);
    this.#failure = undefined;
    if (work.publishes) {
      if (prepared !== undefined) this.#publish(prepared);
      if (work.holds === 'file-writes') this.publish();
    } else {
      this.#prepared = prepared;
      if (prepared !== undefined) this.#dirty?.setPending(this.#requireStore().position.txid + 1n);
      this.#finalization = 'ready';
    }
    if (!this.isBusy && this.waits.count > 0) this.#context.resume(this.waits);
  }

  #publish({writer, staged}: PreparedRecord): void {
    const entry = writer.publish();
    this.#requireStore().adopt(staged, entry);
    this.#context.committed(this, entry);
  }

  #requireStore(): DatabaseStore {
    if (this.#store !== undefined) return this.#store;
    const id = randomBytes(16).toString('hex');
    const store = this.attach(id, false);
    this.#context.register(this, id);
    return store;
  }

  *#prepare(makePlan: () => TransactionPlan | undefined): Slices<PreparedRecord | undefined> {
    const plan = makePlan();
    if (plan === undefined) return undefined;
    if (plan.commit === 0 && this.#store === undefined) return undefined;
    return yield* prepareRecord(this.#requireStore(), plan);
  }

  #common(pageSize: number) {
    const {term, nowMs, compress, lockBytes} = this.#context;
    return {pageSize, term, timestampMs: nowMs(), compress, hasher: this.#hasher, lockPgno: lockBytes.lockPgno(pageSize)};
  }

  #walPlan(transaction: WalTransaction, undone: readonly number[]): TransactionPlan {
    const {tracker, files} = this;
    const common = this.#common(tracker.pageSize);
    const frames = framesByPage(tracker, transaction, undone);
    const sorted = [...frames.keys()].sort((a, b) => a - b);
    const {commit} = transaction;
    return {
      ...common,
      commit,
      pgnos: pagesOfCommit(sorted, this.#countBefore(common.pageSize), commit, common.lockPgno),
      readPage: (pgno, target) => {
        const frame = frames.get(pgno) ?? tracker.findFrame(pgno, transaction.first);
        if (frame >= 0) readFramePage(files, frame, target);
        else files.readMainPage(pgno, target);
      },
      wal: walPlace(tracker, transaction.first, transaction.end),
    };
  }

  #filePlan(): TransactionPlan | undefined {
    if (this.#dirty === undefined || this.#dirty.isUnknown || this.isWalActive) return this.#scanPlan();
    const shape = this.#shape();
    if (shape === undefined) return undefined;
    const common = this.#common(shape.pageSize);
    const countBefore = this.#countBefore(shape.pageSize);
    return {
      ...common,
      commit: shape.pageCount,
      pgnos: pagesOfCommit(this.#dirty.sorted(), countBefore, shape.pageCount, common.lockPgno),
      readPage: (pgno, target) => this.files.readMainPage(pgno, target),
      wal: undefined,
    };
  }

  #pagesPlan(pgnos: readonly number[]): TransactionPlan | undefined {
    const shape = this.#shape();
    if (shape === undefined) return undefined;
    const common = this.#common(shape.pageSize);
    return {
      ...common,
      commit: shape.pageCount,
      pgnos: pagesOfCommit(pgnos, this.#countBefore(shape.pageSize), shape.pageCount, common.lockPgno),
      readPage: (pgno, target) => this.readPage(pgno, target),
      wal: undefined,
    };
  }

  #scanPlan(): TransactionPlan | undefined {
    const shape = this.#shape();
    if (shape === undefined) return undefined;
    const common = this.#common(shape.pageSize);
    const {committedCount} = this.tracker;
    const frames = new Map<number, number>();
    for (let frame = 0; frame < committedCount; frame++) frames.set(this.tracker.pgnoOf(frame), frame);
    return {
      ...common,
      commit: shape.pageCount,
      pgnos: pageRange(1, shape.pageCount, common.lockPgno),
      readPage: (pgno, target) => {
        const frame = frames.get(pgno);
        if (frame === undefined) this.files.readMainPage(pgno, target);
        else readFramePage(this.files, frame, target);
      },
      wal: committedCount > 0 ? walPlace(this.tracker, 0, committedCount) : undefined,
    };
  }

  /** Shape of what a reader would see: of the file, or of the last commit in the WAL. */
  #shape(): FileShape | undefined {
    const known = this.tracker.pageSize || this.journalPageSize || (this.#store?.checksums.pageSize ?? 0);
    const commit = this.tracker.committedCount > 0 ? this.tracker.lastCommit : undefined;
    return commit === undefined ? fileShape(this.files, known) : {pageSize: this.tracker.pageSize, pageCount: commit};
  }

  #countBefore(pageSize: number): number {
    const checksums = this.#store?.checksums;
    return checksums === undefined || checksums.pageSize !== pageSize ? 0 : checksums.pageCount;
  }
}
