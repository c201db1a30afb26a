import {randomBytes} from 'node:crypto';
import {mkdirSync, rmSync} from 'node:fs';
import {join} from 'node:path';
import type {LogEntry} from '../../log/log-entry.ts';
import {PageHasher} from '../../ltx/checksum.ts';
import {type ChecksumAdoption, DatabaseStore, type StoreContext} from '../database-store.ts';
import type {Flusher} from '../flusher.ts';
import {WaitList} from '../mount/database-hooks.ts';
import {BackingFiles} from './backing-files.ts';
import {CaptureWork, type QueuedWork} from './capture-work.ts';
import {DirtyFile} from './dirty-file.ts';
import {pagesOfLastRecord} from './plans.ts';
import {
  type PreparedRecord,
  prepareRecord,
  rebuildChecksums,
  type Slices,
  type TransactionPlan,
} from './record-job.ts';
import {SmallTransactions} from './small-transaction.ts';
import {StoreFlusher} from './store-flusher.ts';
import {TransactionPlans} from './transaction-plans.ts';
import {UndonePages} from './undone-pages.ts';
import {WalTracker, type WalTransaction} from './wal-tracker.ts';
import {WholeCheck} from './whole-check.ts';

/** What all captured databases of the node share. */
export interface CaptureContext extends StoreContext {
  readonly term: bigint;
  readonly flusher: Flusher;
  readonly nowMs: () => number;
  /** A database of this name has its first transaction: makes its ID known. */
  readonly register: (database: CapturedDatabase, id: string) => void;
  readonly committed: (database: CapturedDatabase, entry: LogEntry) => void;
  /** Whether the files are known to be what the log says, or still have to be compared with it. Must not throw. */
  readonly checked: (database: CapturedDatabase, isChecked: boolean) => void;
  /** Serves the requests that waited for this. */
  readonly resume: (waits: WaitList) => void;
  readonly report: (database: {readonly name: string}, event: string, error: unknown) => void;
}

/** Transactions of up to this many pages are captured at once, larger ones in slices between requests. */
const PAGES_AT_ONCE_MAX = 64;
const PAGES_ADOPTED_AT_ONCE_MAX = 1024;
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
  /** What was written to the database file outside of WAL mode. */
  readonly dirtyFile: DirtyFile;
  /**
   * A rollback journal is there that SQLite would roll back: the transaction ends with it. Before it is flushed SQLite
   * ignores it, and has written nothing to the database file under it; the one of an app that died then may stay for ever.
   */
  isJournalActive = false;
  /** Page size that the journal's header told, 0 if none. */
  journalPageSize = 0;
  /** How far the open transaction has written its journal, in bytes; the file may be longer (PERSIST). */
  journalEnd = 0;
  lastUsedMs: number;
  readonly waits = new WaitList();
  readonly undone: UndonePages;
  readonly check: WholeCheck;
  readonly #context: CaptureContext;
  readonly #hasher: PageHasher;
  readonly #work: CaptureWork;
  readonly #small: SmallTransactions;
  readonly #flusher: StoreFlusher;
  readonly #queue: QueuedWork[] = [];
  #running: Slices<PreparedRecord | undefined> | undefined;
  #prepared: PreparedRecord | undefined;
  #adoption: ChecksumAdoption | undefined;
  #store: DatabaseStore | undefined;
  #failure: unknown;
  #finalization: 'none' | 'working' | 'ready' = 'none';

  constructor(context: CaptureContext, name: string, path: string) {
    this.#context = context;
    this.#hasher = new PageHasher(context.crc64);
    this.name = name;
    this.files = new BackingFiles(path);
    this.tracker = new WalTracker(this.files.readWal);
    this.dirtyFile = new DirtyFile({
      ...context,
      files: this.files,
      tracker: this.tracker,
      pageSize: () => this.#store?.checksums.pageSize ?? 0,
    });
    this.undone = new UndonePages(context.nowMs);
    const common = {...context, files: this.files, tracker: this.tracker, hasher: this.#hasher};
    this.#small = new SmallTransactions(common);
    const plans = new TransactionPlans({
      ...common,
      store: () => this.#store,
      dirty: () => this.dirtyFile.pages,
      journalPageSize: () => this.journalPageSize,
    });
    this.#work = new CaptureWork(plans, this.tracker, this.dirtyFile);
    this.#flusher = new StoreFlusher({
      flusher: context.flusher,
      synced: () => context.resume(this.waits),
      failed: error => context.report(this, 'log not flushed', error),
    });
    this.check = new WholeCheck(isChecked => context.checked(this, isChecked));
    this.lastUsedMs = context.nowMs();
  }

  get id(): string | undefined {
    return this.#store?.id;
  }

  get store(): DatabaseStore | undefined {
    return this.#store;
  }

  get isBusy(): boolean {
    return this.#running !== undefined || this.#adoption !== undefined || this.#queue.length > 0;
  }

  get isDirty(): boolean {
    return this.dirtyFile.isAny;
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
    return !this.isJournalActive && (this.tracker.committedCount > 0 || this.tracker.isBehind);
  }

  /** Opens what the log knows of the database. */
  attach(id: string, isUnclean: boolean): DatabaseStore {
    const directory = join(this.#context.directory, id);
    mkdirSync(directory, {recursive: true, mode: 0o700});
    const dirty = this.dirtyFile.open(this.#context.disk, join(directory, 'dirty'));
    if (!this.isJournalActive && dirty.pendingTxid > 0n) dirty.setPending(0n); // Its journal is gone: it stands.
    const unconfirmed = isUnclean ? dirty.pendingTxid : 0n;
    const store = DatabaseStore.open(this.#context, id, isUnclean, unconfirmed);
    this.#store = store;
    this.#flusher.attach(store, this.#context.nowMs());
    this.dirtyFile.store();
    return store;
  }

  /** The -wal was written: queues the transactions that are complete now. Returns whether frames are left to check. */
  noteWal(undone?: Uint32Array): boolean {
    if (undone !== undefined) this.undone.add(undone);
    for (;;) {
      const found = this.tracker.next(FRAMES_PER_TURN);
      if (found === undefined) return false;
      if (found === 'more') return true;
      this.#queueWal(found);
    }
  }

  #queueWal(transaction: WalTransaction): void {
    const takesDirty = this.isDirty && !this.isJournalActive;
    const {count} = this.undone;
    if (!takesDirty && count === 0 && this.#captureSmall(transaction)) return;
    const undone = this.undone.takeAll();
    const work = takesDirty ? this.#work.mixed(transaction, undone) : this.#work.wal(transaction, undone);
    const dirtyCount = takesDirty ? this.dirtyFile.count : 0;
    this.#enqueue(work, transaction.end - transaction.first + count + dirtyCount);
  }

  /** Captures the transaction at once if it is a common one and nothing is in its way. What fails is queued. */
  #captureSmall(transaction: WalTransaction): boolean {
    const store = this.#store;
    if (store === undefined || store.isRebuilding || this.isBusy || this.#failure !== undefined) return false;
    if (!this.#small.accepts(store, transaction)) return false;
    try {
      const prepared = this.#small.prepare(store, transaction);
      if (prepared !== undefined) this.#publish(prepared);
      this.dirtyFile.isOwed = false;
    } catch (error) {
      const work = this.#work.wal(transaction, []);
      this.#queue.push(work);
      this.#fail(work, error);
      return true;
    }
    if (!this.isBusy && this.waits.count > 0) this.#context.resume(this.waits);
    return true;
  }

  /**
   * Captures once more what the last record was made of: the WAL up to `loggedEnd`. Where nothing was overwritten since
   * there is no difference. Frames that are not valid any more never were; their pages go along with the next transaction.
   */
  recaptureWal(loggedEnd: number, undone: Uint32Array): void {
    this.undone.add(undone);
    const first = this.tracker.committedCount;
    let last: WalTransaction | undefined;
    while (this.tracker.committedEnd < loggedEnd) {
      const found = this.tracker.next();
      if (found === undefined || found === 'more') break;
      last = found;
    }
    if (last !== undefined) this.#queueWal({...last, first});
  }

  /** Pages in the last record of the log. */
  pagesOfLastRecord(): Uint32Array {
    const {crc64, lockBytes} = this.#context;
    const log = this.#store?.log;
    return log === undefined ? new Uint32Array(0) : pagesOfLastRecord(log, crc64, lockBytes);
  }

  /** Captures what was written to the database file. With `publishes` false, `publish` makes it visible. */
  captureFile(publishes: boolean): void {
    if (!publishes) this.#finalization = 'working';
    this.#enqueue(this.#work.file(publishes), this.dirtyFile.count);
  }

  /** Compares every page with what the log says and captures the differences. */
  captureAll(): void {
    this.check.begin();
    this.#enqueue(this.#work.all(), Number.POSITIVE_INFINITY);
  }

  /**
   * After pages left the WAL by other ways than a checkpoint (somebody deleted it), the database file is older than the
   * log. Compares those pages; after a checkpoint there is no difference.
   */
  captureAfterWal(pgnos: Uint32Array): void {
    this.#enqueue(this.#work.pages([pgnos]), pgnos.length);
  }

  /**
   * Called now and then: tries again what failed, and captures a file that was written without a journal and never
   * flushed (synchronous=OFF), or beside the WAL, and what perhaps never was. `isWriteLocked` says whether somebody has a write lock on the file.
   */
  tend(isWriteLocked: (ino: number) => boolean): void {
    if (this.isBusy) {
      if (this.#failure !== undefined) this.retry();
      return;
    }
    if (this.#finalization === 'none') this.#flusher.tend(this.#context.nowMs());
    if (this.isJournalActive || this.tracker.isBehind) return;
    const {count} = this.undone;
    if (!this.isDirty && this.undone.isDue) this.#enqueue(this.#work.pages(this.undone.takeAll()), count);
    if (!this.isDirty) return;
    if (this.dirtyFile.isOwed || this.dirtyFile.isQuiet(isWriteLocked)) this.captureFile(true);
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
    try {
      if (prepared !== undefined) this.#publish(prepared);
      this.dirtyFile.clear();
      this.check.confirmed();
    } catch (error) {
      // The app's commit is done: what the log lacks is still dirty, and owed to it.
      this.dirtyFile.isOwed = true;
      this.#noteFailure(error);
    }
  }

  /** The journal stays after all: the transaction goes on, or is rolled back. */
  withdraw(): void {
    this.check.withdrawn();
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
    return this.#flusher.isLogDurable();
  }

  /** The errno of a flush of the log that failed, once: it is tried again afterwards. */
  takeSyncErrno(): number {
    return this.#flusher.takeErrno();
  }

  /** Works until `deadline` (performance.now()). Returns whether there is more to do. */
  work(deadline: number): boolean {
    if (this.noteWal()) return true;
    while (this.isBusy) {
      if (!this.#step()) return false; // Failed: tried again when something is asked of the database.
      if (performance.now() >= deadline) break;
    }
    if (!this.isBusy && this.waits.count > 0) this.#context.resume(this.waits);
    return this.isBusy;
  }

  /** Tries again what failed. */
  retry(): void {
    this.work(performance.now() + 1);
  }

  /** Makes log, page checksums and files durable. Waits for the disk. */
  flush(): void {
    this.#flusher.detach();
    this.#store?.flush();
    this.files.sync(this.#context.disk);
  }

  close(): void {
    this.files.close();
    this.#closeStore();
  }

  #closeStore(): void {
    this.#flusher.detach();
    this.#store?.close();
    this.dirtyFile.close();
    this.#store = undefined;
  }

  #enqueue(work: QueuedWork, pageCount: number): void {
    this.#queue.push(work);
    if (pageCount > PAGES_AT_ONCE_MAX || this.#queue.length > 1) return;
    if (this.#adoption === undefined) while (this.isBusy && this.#step());
  }

  /** One slice. Returns false when the work failed and waits for `retry`. */
  #step(): boolean {
    if (this.#adoption !== undefined) return this.#adopt(this.#adoption);
    const [work] = this.#queue;
    if (work === undefined) return true;
    try {
      this.#running ??= this.#prepare(work.plan);
      const result = this.#running.next();
      if (result.done !== true) return true;
      this.#finish(work, result.value);
      return true;
    } catch (error) {
      this.#fail(work, error);
      return false;
    }
  }

  #fail(work: QueuedWork, error: unknown): void {
    this.#running = undefined;
    if (!work.publishes) this.withdraw();
    if (work.giveUp !== undefined) {
      if (this.#queue[0] === work) this.#queue.shift();
      this.dirtyFile.isOwed = work.publishes;
      try {
        work.giveUp();
      } catch {
        // The disk is full for that too: it is noted in memory.
      }
    }
    this.#noteFailure(error);
    this.#context.resume(this.waits);
  }

  #noteFailure(error: unknown): void {
    const isNew = this.#failure === undefined;
    this.#failure = error;
    if (isNew) this.#context.report(this, 'transaction not logged', error);
  }

  #finish(work: QueuedWork, prepared: PreparedRecord | undefined): void {
    if (work.publishes) {
      if (prepared !== undefined) this.#publish(prepared);
      this.check.published();
      this.#queue.shift();
      this.#noteSuccess();
      if (work.takesDirty) this.publish();
    } else {
      this.#prepared = prepared;
      this.check.prepared();
      if (prepared !== undefined) this.dirtyFile.pages?.setPending(this.#requireStore().position.txid + 1n);
      this.#queue.shift();
      this.#noteSuccess();
      this.#finalization = 'ready';
    }
    if (!this.isBusy && this.waits.count > 0) this.#context.resume(this.waits);
  }

  #noteSuccess(): void {
    this.#running = undefined;
    if (this.#failure !== undefined) this.#context.report(this, 'transactions logged again', undefined);
    this.#failure = undefined;
    this.dirtyFile.isOwed = false;
  }

  #publish({writer, staged}: PreparedRecord): void {
    const entry = writer.publish();
    this.#adoption = this.#requireStore().adoptInSteps(staged, entry);
    if (staged.pgnos.length <= PAGES_ADOPTED_AT_ONCE_MAX)
      while (this.#adoption !== undefined && this.#adopt(this.#adoption));
    this.#context.committed(this, entry);
  }

  /** Takes over some page checksums of the last record. Nothing else is prepared before all are. */
  #adopt(adoption: ChecksumAdoption): boolean {
    try {
      if (!adoption.step()) return true;
      this.#adoption = undefined;
    } catch (error) {
      this.#noteFailure(error);
      return false;
    }
    if (this.#queue.length === 0) this.#failure = undefined;
    return true;
  }

  #requireStore(): DatabaseStore {
    if (this.#store !== undefined) return this.#store;
    const id = randomBytes(16).toString('hex');
    try {
      const store = this.attach(id, false);
      this.#context.register(this, id);
      return store;
    } catch (error) {
      this.#closeStore();
      this.dirtyFile.noteUnknown();
      rmSync(join(this.#context.directory, id), {recursive: true, force: true});
      throw error;
    }
  }

  *#prepare(makePlan: () => Slices<TransactionPlan | undefined>): Slices<PreparedRecord | undefined> {
    const plan = yield* makePlan();
    this.check.planned(plan);
    if (plan === undefined) return undefined;
    if (plan.commit === 0 && this.#store === undefined) return undefined;
    const store = this.#requireStore();
    if (!store.isRebuilding) return yield* prepareRecord(store, plan);
    if (yield* rebuildChecksums(store, plan)) return undefined;
    const again = yield* makePlan();
    return again === undefined ? undefined : yield* prepareRecord(store, again);
  }
}
