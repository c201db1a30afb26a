import {closeSync, openSync, rmSync, statSync} from 'node:fs';
import {join} from 'node:path';
import type {KernelNotifier} from '../../fuse/notify.ts';
import {AssertionError} from '../../lib/assert.ts';
import {LogError} from '../../log/error.ts';
import {type ByteSource, bytesSource, measureLtx} from '../../ltx/decoder.ts';
import {LtxError} from '../../ltx/error.ts';
import {CHECKSUM_FLAG, EMPTY_POSITION, equalPositions, type Position, toTxid} from '../../ltx/position.ts';
import {FollowerDatabase} from '../apply/follower-database.ts';
import type {KernelCache, PageTransaction} from '../apply/page-transaction.ts';
import {DatabaseStore, type StagedChecksums, type StoreContext} from '../database-store.ts';
import type {DatabaseInfo} from '../messages.ts';
import {type CompactOptions, compactRecords, fileSource} from './compact-records.ts';
import {hashImage, imageTransaction} from './image.ts';
import {PageBatch} from './page-batch.ts';
import {PositionFile} from './position-file.ts';
import {type CheckTools, checkRecord, transactionOf} from './record-check.ts';

/** What all followed databases of the node share. */
export interface FollowContext extends StoreContext, CheckTools {
  readonly filesDirectory: string;
  readonly mountDirectory: string;
  readonly notifier: KernelNotifier;
  readonly sync: 'normal' | 'off';
  readonly buffer: Uint8Array;
  readonly compact: CompactOptions;
  readonly randomU32: () => number;
  /** Takes the folder of a database whose log can't be read out of the way, and says so. */
  readonly keepAside: (database: FollowedDatabase, error: Error) => void;
}

/** What the daemon before left. */
export interface FollowedBefore {
  readonly wasInUse: boolean;
  /** The machine did not lose its memory since the files were last known to be at their position. */
  readonly isTrusted: boolean;
  /** Called when that is known again. */
  readonly trusted: () => void;
  /** Called when the files can't be read or brought to the log's end: a copy will take their place. */
  readonly damaged: (error: unknown) => void;
}

/** `again`: a reader is in the way; ask a little later. */
export type FollowStep = 'done' | 'again';

const CHECKPOINT_BUDGET_MS = 5;
const FLUSH_INTERVAL_MS = 10_000;
/** After a failure to bring the files up to the log; while a reader is in the way there is no pause. */
const FINISH_PAUSE_MIN_MS = 1000;
const FINISH_PAUSE_MAX_MS = 60_000;
/** Errors that say nothing of the files: what failed is tried again. */
const PASSING: ReadonlySet<string | undefined> = new Set([
  'APPLY_LOCKED',
  'ENOSPC',
  'EDQUOT',
  'EMFILE',
  'ENFILE',
]);

/**
 * One database that this node follows: its log, its page checksums, and the SQLite files that apps read. A record goes to
 * the log first, then to the files; after a crash the files are brought up to the log's end in one step, since what
 * lies between was never seen as a whole by anybody.
 */
export class FollowedDatabase {
  readonly id: string;
  name: string;
  readonly #context: FollowContext;
  readonly #before: FollowedBefore;
  #store: DatabaseStore | undefined;
  #position: PositionFile | undefined;
  #database: FollowerDatabase | undefined;
  /** What the files hold. */
  #applied: Position = EMPTY_POSITION;
  /** The files are not known to be at any position: only a whole copy helps. */
  #isUnknown = false;
  /** Whether the files are at any position was found out, as far as there was doubt. */
  #isExamined = false;
  /** The files are closed, durable, and at the log's end. */
  #isSettled: boolean;
  #flushAtMs = 0;
  #finishAtMs = 0;
  #finishPauseMs = FINISH_PAUSE_MIN_MS;
  /** The records that were accepted last: where they begin, their pages, and the last of them. */
  #acceptedAfter = 0n;
  readonly #batch = new PageBatch();
  #newest: ByteSource | undefined;

  constructor(context: FollowContext, id: string, name: string, before: FollowedBefore) {
    this.#context = context;
    this.id = id;
    this.name = name;
    this.#before = before;
    this.#isSettled = !before.wasInUse;
  }

  get directory(): string {
    return join(this.#context.directory, this.id);
  }

  /** Whether the next start need not look at the files. */
  get isSettled(): boolean {
    return this.#isSettled;
  }

  get isAttached(): boolean {
    return this.#database !== undefined;
  }

  /** The log has transactions of which the primary is not told, so it can't say whether it has them too. */
  get hasUntoldLog(): boolean {
    return this.#isUnknown && this.store.position.txid > 0n;
  }

  /** The log has more than the files. Where it is not open yet, nobody has asked so far. */
  get isBehind(): boolean {
    const position = this.#store?.position;
    return position !== undefined && !this.#isUnknown && !equalPositions(this.#applied, position);
  }

  get store(): DatabaseStore {
    this.#store ??= this.#openStore();
    return this.#store;
  }

  /** As the primary is told: where the log ends, since the files follow it by themselves. */
  get info(): DatabaseInfo {
    const {store, id, name} = this;
    if (this.#isUnknown) return {id, name, position: EMPTY_POSITION, term: 0n, pageSize: 0, commit: 0};
    return {
      id,
      name,
      position: store.position,
      term: store.term,
      pageSize: store.checksums.pageSize,
      commit: store.checksums.pageCount,
    };
  }

  /** Opens the files under SQLite's locks and brings them up to the log. Throws `ApplyError` while an app is in the way. */
  attach(): FollowStep {
    this.#database ??= this.#openFiles();
    if (!this.#isExamined && this.#examineIfInDoubt() === 'again') return 'again';
    return this.#catchUpFiles();
  }

  /**
   * Checks records that follow on each other and appends them to the log. `finishApply` brings them to the files, also those
   * before one that was refused.
   */
  accept(records: readonly ByteSource[]): void {
    this.#batch.clear();
    this.#newest = undefined;
    this.#acceptedAfter = this.store.position.txid;
    for (const record of records) this.#accept(record);
  }

  #accept(source: ByteSource): void {
    const {store} = this;
    if (this.#isUnknown)
      throw new LtxError(
        'LTX_GAP',
        'Cannot apply transaction: the database is not known to be at any position',
        {},
      );
    const {header, staged} = checkRecord(store, source, this.#context, this.#batch);
    const entry = source.bytes === undefined ? store.log.appendFrom(source) : store.log.append(source.bytes);
    store.adopt(staged, entry);
    this.#batch.endRecord(header.commit);
    this.#newest = source;
  }

  /** Applies what the log has and the files have not, as one transaction. */
  finishApply(): FollowStep {
    if (this.#database === undefined || !this.#isExamined) return this.attach();
    const transaction = this.#missing();
    if (transaction === undefined) return this.#catchUpFiles();
    return this.#applyToFiles(transaction, this.store.position);
  }

  /** What the files lack, if it is what was accepted last and at hand. */
  #missing(): PageTransaction | undefined {
    const [newest, batch] = [this.#newest, this.#batch];
    if (newest === undefined || this.#applied.txid !== this.#acceptedAfter) return undefined;
    if (!batch.isIncomplete) return batch;
    return batch.recordCount === 1 ? transactionOf(newest, this.#context) : undefined;
  }

  /** Splits `bytes` into the records that it holds back to back. */
  split(source: ByteSource): ByteSource[] {
    const found: ByteSource[] = [];
    for (let position = 0; position < source.size; ) {
      const {size} = measureLtx(source, position);
      found.push(part(source, position, size));
      position += size;
    }
    return found;
  }

  /** Brings the files up to a log that they could not follow, copies from the WAL into the file, and flushes now and then. */
  maintain(nowMs: number): boolean {
    if (this.isBehind && nowMs >= this.#finishAtMs) {
      this.#finishAtMs = nowMs + this.#finishPauseMs;
      this.#finishPauseMs = Math.min(2 * this.#finishPauseMs, FINISH_PAUSE_MAX_MS);
      if (this.finishApply() === 'again') this.#finishAtMs = 0;
    }
    const database = this.#database;
    if (database === undefined || !this.#isExamined) return false;
    const hasMore = database.isCheckpointDue && !database.checkpointStep(CHECKPOINT_BUDGET_MS);
    if (nowMs < this.#flushAtMs) return hasMore;
    if (this.#flushAtMs > 0) this.flush();
    this.#flushAtMs = nowMs + FLUSH_INTERVAL_MS;
    return hasMore;
  }

  /**
   * Makes files, log and checksums durable, in the order that a loss of power may interrupt anywhere. Returns false, and does
   * nothing, while the files are not at the log's end.
   */
  flush(): boolean {
    const {store} = this;
    if (!this.#isExamined || this.#isUnknown || !equalPositions(this.#applied, store.position)) return false;
    this.#database?.sync();
    store.flush();
    return true;
  }

  /**
   * Replaces the content by the `pageCount` pages in `image`, which stand at `position`. Readers see it as one
   * transaction. Throws `LTX_CHECKSUM_MISMATCH` when the pages are not what the position says.
   */
  prepareReplace(
    image: ByteSource,
    shape: {readonly pageSize: number; readonly pageCount: number},
    position: Position,
  ): PageTransaction {
    const {pageSize, pageCount} = shape;
    const {staged, rolling} = hashImage(image, pageSize, pageCount, this.#context);
    if (rolling !== position.checksum) {
      throw new LtxError(
        'LTX_CHECKSUM_MISMATCH',
        'Cannot apply snapshot: its pages are not those of its position',
        {computed: rolling, promised: position.checksum},
      );
    }
    this.#replacement = staged;
    return imageTransaction(image, this.#changedPages(staged), staged);
  }

  /** The pages of a new image that the files don't have yet. */
  #changedPages({pageSize, pgnos, checksums}: StagedChecksums): readonly number[] {
    const {store} = this;
    const table = store.checksums;
    const isComparable =
      !this.#isUnknown &&
      !store.isRebuilding &&
      table.pageSize === pageSize &&
      equalPositions(this.#applied, store.position);
    return isComparable ? pgnos.filter((pgno, i) => table.get(pgno) !== checksums[i]) : pgnos;
  }

  #replacement: StagedChecksums | undefined;

  /** Applies what `prepareReplace` made. */
  replace(transaction: PageTransaction, position: Position, term: bigint): FollowStep {
    const {store} = this;
    const staged = this.#replacement;
    if (staged === undefined) throw new Error('Cannot replace content: nothing was prepared');
    this.#database ??= this.#openFiles();
    store.checksums.invalidate();
    const wasUnknown = this.#isUnknown;
    this.#isUnknown = true;
    if (this.#write(this.#database, transaction) === 'again') {
      this.#isUnknown = wasUnknown; // Nothing was changed.
      return 'again';
    }
    this.#isExamined = true;
    store.log.reset({position, term});
    store.checksums.clear();
    store.adoptImage(staged);
    this.#replacement = undefined;
    this.#isUnknown = false;
    this.#setApplied(position);
    this.flush();
    this.#noteTrusted();
    return 'done';
  }

  /** Lets go of the files in the mount. */
  detach(): void {
    if (this.#database === undefined) return;
    this.#isSettled = this.flush();
    this.#database.close();
    this.#database = undefined;
  }

  close(): void {
    this.detach();
    this.#store?.close();
    this.#position?.close();
    this.#store = undefined;
    this.#position = undefined;
  }

  #openStore(): DatabaseStore {
    const store = this.#openLog();
    this.#position = new PositionFile(join(this.directory, 'position'));
    this.#applied = this.#position.read();
    return store;
  }

  /** A follower can do without its log: a damaged one is kept, and the database begins anew, as one that has nothing yet. */
  #openLog(): DatabaseStore {
    try {
      return DatabaseStore.open(this.#context, this.id, this.#before.wasInUse);
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#context.keepAside(this, error);
      return DatabaseStore.open(this.#context, this.id, this.#before.wasInUse);
    }
  }

  #openFiles(): FollowerDatabase {
    this.#isSettled = false;
    const {filesDirectory, mountDirectory, disk, lockBytes, sync, randomU32, buffer} = this.#context;
    const backing = join(filesDirectory, this.name);
    return FollowerDatabase.open({
      disk,
      backing,
      mounted: join(mountDirectory, this.name),
      cache: this.#cache(backing),
      lockBytes,
      sync,
      randomU32,
      buffer,
      nowMs: () => performance.now(),
      sleep: ms => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
    });
  }

  /** Tells the kernel of bytes written to the backing files; node IDs are their inode numbers. */
  #cache(backing: string): KernelCache {
    const {notifier} = this.#context;
    const path = {database: backing, wal: `${backing}-wal`, journal: `${backing}-journal`} as const;
    return {
      store: (file, offset, bytes) => notifier.store(statSync(path[file]).ino, offset, bytes),
      invalidate: file => {
        const ino = statSync(path[file], {throwIfNoEntry: false})?.ino;
        if (ino !== undefined) notifier.invalidateInode(ino);
      },
    };
  }

  #applyToFiles(transaction: PageTransaction, position: Position): FollowStep {
    const database = this.#database;
    if (database === undefined) throw new Error('Cannot apply transaction: the files are not open');
    const isNothing = transaction.commit === 0 && database.pageCount === 0;
    if (!isNothing && this.#write(database, transaction) === 'again') return 'again';
    this.#setApplied(position);
    this.#finishPauseMs = FINISH_PAUSE_MIN_MS;
    this.#batch.clear();
    this.#newest = undefined;
    return 'done';
  }

  /** A failure that leaves the files of no use lets go of them: the next attempt opens them again and recovers. */
  #write(database: FollowerDatabase, transaction: PageTransaction): FollowStep {
    try {
      return database.apply(transaction) === 'applied' ? 'done' : 'again';
    } finally {
      if (database.isClosed) this.#database = undefined;
    }
  }

  #setApplied(position: Position): void {
    this.#applied = position;
    this.#position?.write(position);
  }

  /** Everything in the log after what the files have, as one transaction. */
  #catchUpFiles(): FollowStep {
    const {store} = this;
    if (this.#isUnknown || equalPositions(this.#applied, store.position)) return 'done';
    const records: ByteSource[] = [];
    let from = toTxid(this.#applied.txid + 1n);
    while (from <= store.position.txid) {
      const entries = store.log.entries(from, 256);
      const last = entries.at(-1);
      if (last === undefined) break;
      for (const entry of entries) records.push(store.log.read(entry));
      from = toTxid(last.maxTxid + 1n);
    }
    if (this.#applied.txid < store.log.base.position.txid || records.length === 0) {
      this.#isUnknown = true;
      return 'done';
    }
    const {path, size} = compactRecords(records, this.#context.compact);
    const fd = openSync(path, 'r');
    try {
      return this.#applyToFiles(transactionOf(fileSource(fd, 0, size), this.#context), store.position);
    } finally {
      closeSync(fd);
      rmSync(path, {force: true});
    }
  }

  /** Until this is done, or a copy has come, every start finds the files in doubt. */
  #examineIfInDoubt(): FollowStep {
    const {store} = this;
    const isInDoubt = store.isRebuilding || (!this.#before.isTrusted && store.position.txid > 0n);
    if (isInDoubt && this.#examineAll() === 'again') return 'again';
    this.#isExamined = true;
    if (!this.#isUnknown) this.#noteTrusted();
    return 'done';
  }

  #noteTrusted(): void {
    if (!this.#before.isTrusted) this.#before.trusted();
  }

  #examineAll(): FollowStep {
    try {
      return this.#examine();
    } catch (error) {
      const {code} = error as NodeJS.ErrnoException;
      if (error instanceof AssertionError || PASSING.has(code)) throw error;
      this.#isUnknown = true;
      this.#before.damaged(error);
      return 'done';
    }
  }

  /**
   * The machine lost its memory, or the checksums are gone: finds out whether the files are where the log ends, if need be after
   * writing everything since the last flush once more. If that does not help either, they are unknown.
   */
  #examine(): FollowStep {
    const {store} = this;
    if (this.#matchesLog()) {
      this.#setApplied(store.position);
      return 'done';
    }
    const durable = store.checksums.state === 'missing' ? undefined : store.checksums.durablePosition;
    if (
      durable !== undefined &&
      durable.txid >= store.log.base.position.txid &&
      durable.txid < store.position.txid
    ) {
      this.#applied = durable;
      if (this.#catchUpFiles() === 'again') return 'again';
      if (!this.#isUnknown && this.#matchesLog()) return 'done';
    }
    this.#isUnknown = true;
    return 'done';
  }

  /** Whether the files' pages add up to the checksum at the log's end. Fills the table if it was lost. */
  #matchesLog(): boolean {
    const database = this.#database;
    const {store} = this;
    if (database === undefined || database.pageSize === 0) return store.position.checksum === CHECKSUM_FLAG;
    const {pageSize, pageCount} = database;
    const image: ByteSource = {
      size: pageSize * pageCount,
      read: (position, target) => {
        database.readPage(position / pageSize + 1, target);
        return target.length;
      },
    };
    const {staged, rolling} = hashImage(image, pageSize, pageCount, this.#context);
    if (rolling !== store.position.checksum) return false;
    if (store.isRebuilding) store.adoptImage(staged);
    return true;
  }
}

/** Whether the bytes of a log or of a record in it are wrong, rather than the attempt to read them. */
function isDamage(error: unknown): error is LogError | LtxError {
  if (error instanceof LogError) return error.code === 'LOG_CORRUPT' || error.code === 'LOG_FOREIGN';
  return error instanceof LtxError;
}

function part(source: ByteSource, offset: number, size: number): ByteSource {
  if (source.bytes !== undefined) return bytesSource(source.bytes.subarray(offset, offset + size));
  return {
    size,
    read: (position, target) =>
      source.read(offset + position, target.subarray(0, Math.min(target.length, size - position))),
  };
}
