import {closeSync, lstatSync, openSync, readSync, rmSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {AssertionError} from '../../lib/assert.ts';
import {type Position, type Txid, toTxid} from '../../ltx/position.ts';
import {hasSqliteMagic} from '../../sqlite/database-header.ts';
import type {Catalog} from '../catalog.ts';
import {dataPaths, setAsideOrphans} from '../data-directory.ts';
import {summaryOf} from '../database-store.ts';
import {errnoOf} from '../mount/context.ts';
import {type CaptureContext, CapturedDatabase} from './captured-database.ts';
import {hasWriteLock, readLocks} from './file-locks.ts';
import {findMissing, findUnlisted, type MissingDatabase} from './missing-files.ts';
import {noteJournal, recoverDatabase} from './recover.ts';
import type {Seals} from './seal.ts';

export interface DatabasesOptions {
  readonly context: CaptureContext;
  readonly catalog: Catalog;
  readonly seals: Seals;
  /** `<data>/files`. */
  readonly filesDirectory: string;
  readonly renamed: (id: string, name: string) => void;
  readonly dropped: (id: string, name: string) => void;
  readonly created: (id: string, name: string) => void;
  /** The database is no longer loaded: what is remembered of its files is void. */
  readonly putAway: (database: CapturedDatabase) => void;
  /** How many databases may be loaded, each with some files open; more only where all of them are in use. */
  readonly loadedMax: number;
}

export interface PruneRules {
  /** Up to which transaction every connected follower has each database. */
  readonly keepFrom: ReadonlyMap<string, Txid>;
  readonly olderThanMs: number;
  readonly bytesMax: number | undefined;
}

const IDLE_MS = 60_000;
const SWEEP_INTERVAL_MS = 10_000;
const SWEEP_BUDGET_MS = 5;
/** What was used so recently is in use. */
const RECENT_MS = 1000;

/** The databases that this node captures: loaded when they are first used, dropped from memory when idle. */
export class CapturedDatabases {
  readonly #options: DatabasesOptions;
  readonly #byName = new Map<string, CapturedDatabase>();
  readonly #byId = new Map<string, CapturedDatabase>();
  readonly #working = new Set<CapturedDatabase>();
  #sweepAtMs = 0;
  #isCatalogFlushing = false;
  #isCatalogStale = false;

  constructor(options: DatabasesOptions) {
    this.#options = options;
  }

  nowMs(): number {
    return this.#options.context.nowMs();
  }

  /** Called by the context when a database has its first transaction. */
  registered(database: CapturedDatabase, id: string): void {
    const {catalog, seals, created} = this.#options;
    seals.open(id, database.files.path, true);
    try {
      catalog.set(id, database.name);
    } catch (error) {
      seals.forget(id);
      throw error;
    }
    this.#flushCatalog();
    created(id, database.name);
    this.#byId.set(id, database);
  }

  /** Makes the catalog durable soon: a database that it does not know gets another identity, and followers a copy. */
  #flushCatalog(): void {
    this.#isCatalogStale = this.#isCatalogFlushing;
    if (this.#isCatalogFlushing) return;
    this.#isCatalogFlushing = true;
    const {context, catalog} = this.#options;
    const done = (errno: number) => {
      this.#isCatalogFlushing = false;
      if (errno !== 0) context.report({name: 'catalog'}, 'catalog not flushed', new Error(`errno ${errno}`));
      else if (this.#isCatalogStale) this.#flushCatalog();
    };
    context.flusher.flush({fd: catalog.fd, isDataOnly: true, done});
  }

  /** Called by the context: the mark says from now on whether a successor may trust the files. */
  checked(database: CapturedDatabase, isChecked: boolean): void {
    const {context, seals} = this.#options;
    if (database.id === undefined) return;
    try {
      seals.open(database.id, database.files.path, isChecked);
    } catch (error) {
      context.report(database, 'mark of a database in use not written', error);
    }
  }

  /** The database at `path`, or undefined where the file there is none. */
  open(path: string): CapturedDatabase | undefined {
    const known = this.#byName.get(path);
    if (known !== undefined) return known;
    if (this.#options.catalog.idOf(path) === undefined && !this.#hasMagic(path)) return undefined;
    return this.#load(path);
  }

  /** As `open`, for a file of which something else says that it is a database: a journal or a WAL. */
  openOrBegin(path: string): CapturedDatabase {
    return this.#byName.get(path) ?? this.#load(path);
  }

  openById(id: string): CapturedDatabase | undefined {
    const name = this.#options.catalog.nameOf(id);
    return name === undefined ? undefined : this.openOrBegin(name);
  }

  loadedById(id: string): CapturedDatabase | undefined {
    return this.#byId.get(id);
  }

  position(path: string): Position | undefined {
    return this.#options.catalog.idOf(path) === undefined ? undefined : this.open(path)?.store?.position;
  }

  /**
   * What happened since the last daemon ended is captured before anybody asks: to the databases that it left in use, and to
   * files that are not where they were. Calls `gotOn` after each of them.
   */
  recoverActive(gotOn: () => void): void {
    const {catalog, seals, filesDirectory} = this.#options;
    for (const missing of findMissing(catalog, seals, filesDirectory)) {
      if (missing.newName === undefined) this.#dropMissing(missing);
      else this.#renameMissing(missing, missing.newName);
      gotOn();
    }
    if (this.#setAsideOrphans() > 0 || catalog.count === 0) this.#openUnlisted();
    for (const id of seals.active()) {
      const name = catalog.nameOf(id);
      if (name === undefined) seals.forget(id);
      else this.#openForRecovery(name, catalog.summaryOf(id) !== undefined);
      gotOn();
    }
  }

  /** A disk that is full or bad keeps one database closed, and the others go on: whoever opens it gets the error. */
  #openForRecovery(name: string, isListed: boolean): void {
    try {
      this.openOrBegin(name);
    } catch (error) {
      if (errnoOf(error) === undefined || !isListed) throw error; // Followers would be told that it is gone.
      this.#options.context.report({name}, 'database not recovered', error);
    }
  }

  /** The file was unlinked by a daemon that died, or deleted while none ran: then its log is kept, for it may have been a mistake. */
  #dropMissing({id, name}: MissingDatabase): void {
    const {context, catalog, seals, dropped} = this.#options;
    const left = seals.leftBehind(id, join(this.#options.filesDirectory, name));
    catalog.drop(id);
    seals.forget(id);
    if (left === 'daemon-died') this.#removeFolder(id);
    dropped(id, name);
    context.report({name}, 'database dropped: its file is gone', undefined);
  }

  #renameMissing({id, name}: MissingDatabase, newName: string): void {
    const {context, catalog, seals, renamed} = this.#options;
    const replaced = catalog.idOf(newName);
    if (replaced !== undefined) this.#dropMissing({id: replaced, name: newName, newName: undefined});
    catalog.set(id, newName);
    seals.void(id);
    this.openById(id); // Its WAL may not have come along.
    renamed(id, newName);
    context.report({name: newName}, `database renamed: its file was "${name}"`, undefined);
  }

  #setAsideOrphans(): number {
    const {context, catalog, filesDirectory} = this.#options;
    const orphans = setAsideOrphans(dataPaths(dirname(filesDirectory)), catalog, this.nowMs());
    for (const {id, kept} of orphans)
      context.report({name: id}, `log without a database kept aside in "${kept}"`, undefined);
    return orphans.length;
  }

  /** The catalog has lost its end, or was never there: databases that it does not know are taken in without being written to. */
  #openUnlisted(): void {
    const {catalog, filesDirectory} = this.#options;
    for (const name of findUnlisted(catalog, filesDirectory))
      if (this.#hasMagic(name)) this.#openForRecovery(name, true);
  }

  #removeFolder(id: string): void {
    rmSync(join(this.#options.context.directory, id), {recursive: true, force: true});
  }

  schedule(database: CapturedDatabase): void {
    this.#working.add(database);
  }

  /** Does background work until `deadline`. Returns whether there is more. */
  work(deadline: number): boolean {
    for (const database of this.#working) {
      if (!database.work(deadline)) this.#working.delete(database);
      if (performance.now() >= deadline) break;
    }
    return this.#working.size > 0;
  }

  /** Looks again at files that came back under their database's name. */
  reload(database: CapturedDatabase): void {
    this.#recover(database);
  }

  rename(database: CapturedDatabase, newName: string): void {
    const hadWal = database.tracker.committedCount > 0;
    this.#byName.delete(database.name);
    database.name = newName;
    database.files.moved(join(this.#options.filesDirectory, newName));
    database.tracker.reset();
    this.#byName.set(newName, database);
    if (database.id !== undefined) {
      this.#options.catalog.set(database.id, newName);
      this.#options.renamed(database.id, newName);
    }
    if (hadWal) database.captureAll();
    this.schedule(database);
  }

  /** A folder has another name: so have the databases in it. */
  renameFolder(oldPath: string, newPath: string): void {
    const {catalog} = this.#options;
    for (const [id, name] of [...catalog.entries()]) {
      if (!name.startsWith(`${oldPath}/`)) continue;
      this.#unload(this.#byName.get(name));
      const newName = newPath + name.slice(oldPath.length);
      catalog.set(id, newName);
      this.#options.renamed(id, newName);
    }
    for (const [name, database] of this.#byName) if (name.startsWith(`${oldPath}/`)) this.#unload(database);
  }

  drop(database: CapturedDatabase): void {
    const {id, name} = database;
    this.#byName.delete(name);
    this.#working.delete(database);
    database.close();
    this.#options.context.resume(database.waits);
    if (id === undefined) return;
    this.#byId.delete(id);
    this.#options.catalog.drop(id);
    this.#options.seals.forget(id);
    this.#removeFolder(id); // After the catalog: nobody asks for it any more.
    this.#options.dropped(id, name);
  }

  /** Puts idle databases away. Returns whether there were any. */
  sweep(isInUse: (database: CapturedDatabase) => boolean): boolean {
    const now = this.nowMs();
    this.#tend();
    if (now < this.#sweepAtMs) return false;
    this.#sweepAtMs = now + SWEEP_INTERVAL_MS;
    const idle = [...this.#byName.values()].filter(
      database => now - database.lastUsedMs > IDLE_MS && !isInUse(database) && !isAtWork(database),
    );
    const deadline = performance.now() + SWEEP_BUDGET_MS;
    for (const database of idle) {
      this.#unload(database);
      if (performance.now() < deadline) continue;
      this.#sweepAtMs = now; // Each waits for the disk: the rest at the next turn.
      break;
    }
    return idle.length > 0;
  }

  #tend(): void {
    let locks: string | undefined;
    const isWriteLocked = (ino: number) => {
      locks ??= readLocks();
      return locks === undefined || hasWriteLock(locks, ino);
    };
    for (const database of this.#byName.values()) {
      this.#attempt(database, 'database not looked after', () => database.tend(isWriteLocked));
      if (database.isBusy) this.schedule(database);
    }
  }

  /** Drops old records of the databases that are loaded; idle ones are pruned when they are used again. */
  prune({keepFrom, olderThanMs, bytesMax}: PruneRules): void {
    for (const [id, database] of this.#byId) {
      const {store} = database;
      if (store === undefined) continue;
      const needed = keepFrom.get(id) ?? store.position.txid;
      const durable = store.checksums.durablePosition.txid;
      const keep = toTxid((needed < durable ? needed : durable) + 1n);
      this.#attempt(database, 'log not pruned', () =>
        store.log.prune({keepFrom: keep, olderThanMs, nowMs: this.nowMs(), bytesMax}),
      );
    }
  }

  /**
   * Everything captured and durable, nothing left to recover at the next start. A comparison of all pages that is under way
   * may have a long way to go: the next start begins it again.
   */
  close(): void {
    for (const database of this.#byName.values()) this.#unload(database, !database.check.isOpen);
  }

  #load(name: string): CapturedDatabase {
    const {context, catalog, seals, filesDirectory} = this.#options;
    const path = join(filesDirectory, name);
    if (this.#byName.size >= this.#options.loadedMax) this.#putAwayOldest();
    const database = new CapturedDatabase(context, name, path);
    const id = catalog.idOf(name);
    this.#byName.set(name, database);
    try {
      if (id === undefined) {
        if (this.#hasMagic(name)) recoverDatabase(database, 'unknown');
      } else {
        const left = seals.leftBehind(id, path);
        noteJournal(database);
        database.attach(id, left !== 'closed');
        this.#byId.set(id, database);
        seals.open(id, path, left !== 'unknown');
        recoverDatabase(database, left);
      }
    } catch (error) {
      this.#byName.delete(name); // Half of it would be taken for all, and capture nothing.
      if (id !== undefined) this.#byId.delete(id);
      database.close();
      throw error;
    }
    this.schedule(database);
    return database;
  }

  /** Makes room for another database. Waits for the disk. */
  #putAwayOldest(): void {
    let oldest: CapturedDatabase | undefined;
    for (const database of this.#byName.values())
      if (!database.isBusy && (oldest === undefined || database.lastUsedMs < oldest.lastUsedMs))
        oldest = database;
    if (oldest === undefined || this.nowMs() - oldest.lastUsedMs < RECENT_MS) return;
    this.#unload(oldest);
    this.#options.putAway(oldest);
  }

  #recover(database: CapturedDatabase): void {
    recoverDatabase(database, 'unknown');
    this.schedule(database);
  }

  #unload(database: CapturedDatabase | undefined, finishesWork = true): void {
    if (database === undefined) return;
    const isCaptured =
      !finishesWork ||
      this.#attempt(database, 'database not captured', () => {
        while (database.work(Number.POSITIVE_INFINITY));
      });
    const {id, store, files, name} = database;
    const isClean =
      isCaptured &&
      !database.isBusy &&
      !database.isDirty &&
      !database.check.isOpen &&
      database.undone.count === 0 &&
      !database.isJournalActive &&
      database.failure === undefined;
    const isFlushed =
      (finishesWork || !database.isBusy) &&
      this.#attempt(database, 'database not flushed', () => database.flush());
    this.#byName.delete(name);
    this.#working.delete(database);
    database.close();
    this.#options.context.resume(database.waits); // Whoever waited for its log: it is durable now, or opened anew.
    if (id === undefined) return;
    this.#byId.delete(id);
    if (!isClean || !isFlushed || store === undefined) return;
    this.#attempt(database, 'database not sealed', () => {
      this.#options.catalog.summarize(id, summaryOf(store));
      this.#options.seals.close(id, files.path);
    });
  }

  /** What is done for one database must not fail what is done for the others. Without its seal it is looked at when it is used again. */
  #attempt(database: CapturedDatabase, event: string, work: () => void): boolean {
    try {
      work();
      return true;
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      this.#options.context.report(database, event, error);
      return false;
    }
  }

  #hasMagic(name: string): boolean {
    const path = join(this.#options.filesDirectory, name);
    if (lstatSync(path, {throwIfNoEntry: false})?.isFile() !== true) return false;
    const fd = openSync(path, 'r');
    try {
      const start = new Uint8Array(16);
      return readSync(fd, start, 0, 16, 0) === 16 && hasSqliteMagic(start);
    } finally {
      closeSync(fd);
    }
  }
}

/** There is work that goes on by itself: to finish it at once would hold up everybody. */
function isAtWork(database: CapturedDatabase): boolean {
  return database.isBusy && database.failure === undefined;
}
