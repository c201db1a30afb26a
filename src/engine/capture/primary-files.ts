import {lstatSync} from 'node:fs';
import {constants} from 'node:os';
import {formatPosition} from '../../ltx/position.ts';
import {hasSqliteMagic} from '../../sqlite/database-header.ts';
import {JOURNAL_HEADER_SIZE, looksHot} from '../../sqlite/journal.ts';
import {WAL_HEADER_SIZE} from '../../sqlite/wal.ts';
import {errnoOf} from '../mount/context.ts';
import {ALLOW, type DatabaseHooks, type Verdict} from '../mount/database-hooks.ts';
import type {Inode, InodeTable} from '../mount/inode-table.ts';
import {fileRole} from '../mount/names.ts';
import type {CapturedDatabase} from './captured-database.ts';
import type {CapturedDatabases} from './captured-databases.ts';
import {journalPageSize} from './plans.ts';
import {hasSpaceForRecord} from './record-space.ts';

const {EIO, ENOSPC} = constants.errno;

type DatabaseRole = 'main' | 'wal' | 'journal';

interface DatabaseFile {
  readonly database: CapturedDatabase;
  readonly role: DatabaseRole;
}

/**
 * The mount's files on a primary: decides which event ends a transaction.
 *
 * WAL mode: a complete frame with a commit size (`WalTracker`). Rollback journal: its removal, truncation to
 * nothing, or zeroed header. Without a journal (MEMORY, OFF, plain copies): a flush of the file, or its last close.
 */
export class PrimaryFiles implements DatabaseHooks {
  readonly #inodes: InodeTable;
  readonly #databases: CapturedDatabases;
  readonly #byNodeid = new Map<number, DatabaseFile | null>();
  /** The write that is being served changes nothing: the bytes are there already. */
  #isRepeated = false;
  /** The write that is being served zeroes a journal's header. */
  #isZeroing = false;

  constructor(inodes: InodeTable, databases: CapturedDatabases) {
    this.#inodes = inodes;
    this.#databases = databases;
  }

  beforeOpen(): Verdict {
    return ALLOW;
  }

  opened(inode: Inode): void {
    if (this.#byNodeid.get(inode.nodeid) === null) this.#byNodeid.delete(inode.nodeid);
    this.#find(inode);
  }

  beforeCreate(): Verdict {
    return ALLOW;
  }

  created(inode: Inode): void {
    this.#byNodeid.delete(inode.nodeid);
    this.#find(inode);
  }

  beforeWrite(inode: Inode, offset: number, data: Buffer): Verdict {
    this.#isRepeated = false;
    this.#isZeroing = false;
    const file = this.#find(inode) ?? this.#recognize(inode, offset, data);
    if (file === undefined) return ALLOW;
    const {database, role} = file;
    if (role === 'wal') return this.#beforeWalWrite(database, offset, data);
    if (role === 'journal') return this.#beforeJournalWrite(database, offset, data);
    if (database.finalization === 'ready') database.withdraw();
    const verdict = this.#beforeFileWrite(database);
    if (verdict !== ALLOW) return verdict;
    if (database.isJournalActive && !hasSpaceForRecord(database, offset, data)) return ENOSPC;
    if (database.isWalActive) database.dirtyFile.noteWriteUnderWal(offset, data.length);
    else database.dirtyFile.noteWrite(offset, data.length);
    return ALLOW;
  }

  wrote(inode: Inode, offset: number, size: number): void {
    const file = this.#find(inode);
    if (file === undefined) return;
    const {database, role} = file;
    if (role === 'wal' && !this.#isRepeated) {
      const undone = database.tracker.wrote(offset, size);
      if (database.noteWal(undone) || database.isBusy) this.#databases.schedule(database);
    }
    if (role === 'journal' && this.#isZeroing && size === JOURNAL_HEADER_SIZE) this.#finalized(database);
  }

  beforeTruncate(inode: Inode, size: number): Verdict {
    const file = this.#find(inode);
    if (file === undefined) return ALLOW;
    const {database, role} = file;
    if (role === 'journal') return size === 0 ? this.#finalize(database) : ALLOW;
    if (role === 'wal' && database.tracker.isBehind) return this.#waitFor(database);
    if (role === 'wal') return size < database.tracker.committedEnd ? this.#beforeWalReset(database) : ALLOW;
    const verdict = this.#beforeFileWrite(database);
    if (verdict !== ALLOW) return verdict;
    if (database.isWalActive) database.dirtyFile.noteCutUnderWal(size);
    else if (!database.isJournalActive) database.dirtyFile.noteWrite(size, 1);
    return ALLOW;
  }

  truncated(inode: Inode, size: number): void {
    const file = this.#find(inode);
    if (file === undefined) return;
    const {database, role} = file;
    if (role === 'journal' && size === 0) this.#finalized(database);
    if (role === 'wal') this.#walCut(database, size);
  }

  beforeUnlink(inode: Inode): Verdict {
    const file = this.#find(inode);
    if (file === undefined) return ALLOW;
    const {database, role} = file;
    if (role === 'journal') return this.#finalize(database);
    if (role === 'wal') return this.#beforeWalReset(database);
    return database.isBusy && database.failure === undefined ? this.#waitFor(database) : ALLOW;
  }

  unlinked(inode: Inode): void {
    const file = this.#byNodeid.get(inode.nodeid);
    this.#byNodeid.delete(inode.nodeid);
    if (file === undefined || file === null) return;
    if (file.role === 'journal') this.#finalized(file.database);
    else if (file.role === 'wal') this.#walGone(file.database);
    else this.#dropped(file.database);
  }

  beforeRename(inode: Inode, target: Inode | undefined): Verdict {
    for (const moved of [inode, target]) {
      const verdict = moved === undefined ? ALLOW : this.beforeUnlink(moved);
      if (verdict !== ALLOW) return verdict;
    }
    return ALLOW;
  }

  renamed(inode: Inode, oldPath: string, newPath: string): void {
    if (inode.isDirectory) {
      this.#byNodeid.clear();
      this.#databases.renameFolder(oldPath, newPath);
      return;
    }
    const file = this.#byNodeid.get(inode.nodeid);
    this.#byNodeid.delete(inode.nodeid);
    if (file?.role === 'journal') this.#finalized(file.database);
    else if (file?.role === 'wal') this.#walGone(file.database);
    else if (file?.role === 'main') this.#renameDatabase(file.database, newPath);
    const now = this.#find(inode);
    if (now?.role === 'wal' || now?.role === 'journal') this.#databases.reload(now.database);
  }

  beforeSync(inode: Inode): Verdict {
    const file = this.#find(inode);
    return file?.role === 'main' ? this.#captureFile(file.database) : ALLOW;
  }

  released(inode: Inode): void {
    if (inode.opens > 1) return;
    const file = this.#find(inode);
    if (file?.role !== 'main') return;
    const {database} = file;
    if (database.isBusy && !database.isJournalActive) database.dirtyFile.isOwed = true;
    this.#captureFile(database);
  }

  positionText(path: string): string | undefined {
    const position = this.#databases.position(path);
    return position === undefined ? undefined : `${formatPosition(position)}\n`;
  }

  #find(inode: Inode): DatabaseFile | undefined {
    const known = this.#byNodeid.get(inode.nodeid);
    if (known !== undefined) {
      if (known !== null) known.database.lastUsedMs = this.#databases.nowMs();
      return known ?? undefined;
    }
    const found = this.#resolve(inode);
    this.#byNodeid.set(inode.nodeid, found ?? null);
    return found;
  }

  #resolve(inode: Inode): DatabaseFile | undefined {
    if (inode.isDirectory || inode.isHidden || inode.parent === undefined) return undefined;
    const {role, base} = fileRole(inode.name);
    if (role === 'shm' || role === 'super-journal') return undefined;
    const path = this.#inodes.relativePath(inode);
    if (role === 'main') {
      const database = this.#databases.open(path);
      return database === undefined ? undefined : {database, role};
    }
    const main = lstatSync(this.#inodes.childPath(inode.parent, base), {throwIfNoEntry: false});
    if (main?.isFile() !== true) return undefined;
    const database = this.#databases.openOrBegin(path.slice(0, path.length - inode.name.length) + base);
    this.#byNodeid.set(main.ino, {database, role: 'main'});
    return {database, role};
  }

  /** A file becomes a database when SQLite's header is written to it. */
  #recognize(inode: Inode, offset: number, data: Buffer): DatabaseFile | undefined {
    if (offset !== 0 || inode.isDirectory || inode.isHidden || inode.role !== 'main' || !hasSqliteMagic(data))
      return undefined;
    const file: DatabaseFile = {
      database: this.#databases.openOrBegin(this.#inodes.relativePath(inode)),
      role: 'main',
    };
    this.#byNodeid.set(inode.nodeid, file);
    return file;
  }

  #beforeFileWrite(database: CapturedDatabase): Verdict {
    if (database.isHeld('file-write')) {
      const refusal = this.#retried(database);
      if (refusal !== ALLOW) return refusal;
    }
    // Frames that nobody has checked may hold the page that a checkpoint is about to write.
    const isBehind = database.isWalActive && database.tracker.isBehind;
    return isBehind || database.isHeld('file-write') ? this.#waitFor(database) : ALLOW;
  }

  #beforeWalWrite(database: CapturedDatabase, offset: number, data: Buffer): Verdict {
    const refusal = this.#retried(database);
    if (refusal !== ALLOW) return refusal;
    const {tracker} = database;
    if (tracker.isBehind && offset < tracker.writtenEnd) return this.#waitFor(database);
    if (!tracker.overwrites(offset)) return ALLOW;
    const there = Buffer.alloc(data.length);
    this.#isRepeated = database.files.readWal(there, offset) === there.length && there.equals(data);
    if (this.#isRepeated) return ALLOW;
    if (offset < WAL_HEADER_SIZE) return this.#beforeWalReset(database);
    return database.isHeld('wal-overwrite') ? this.#waitFor(database) : ALLOW;
  }

  /** Before the WAL goes, everything in it must be in the log, and the log on the disk. */
  #beforeWalReset(database: CapturedDatabase): Verdict {
    const refusal = this.#retried(database);
    if (refusal !== ALLOW) return refusal;
    if (database.tracker.isBehind) return this.#waitFor(database);
    if (database.tracker.committedCount === 0) return ALLOW;
    if (database.isHeld('wal-overwrite')) return this.#waitFor(database);
    return database.takeSyncErrno() || (database.isLogDurable() ? ALLOW : database.waits);
  }

  /** Transactions that could not be logged are tried again before anything else is written to the WAL. */
  #retried(database: CapturedDatabase): number {
    if (database.failure === undefined) return ALLOW;
    database.retry();
    return database.failure === undefined ? ALLOW : (errnoOf(database.failure) ?? EIO);
  }

  #beforeJournalWrite(database: CapturedDatabase, offset: number, data: Buffer): Verdict {
    if (offset === 0 && data.length === JOURNAL_HEADER_SIZE && data.every(byte => byte === 0)) {
      this.#isZeroing = true;
      return database.isJournalActive ? this.#finalize(database) : ALLOW;
    }
    if (database.finalization === 'ready') database.withdraw();
    if (offset === 0 && looksHot(data)) database.isJournalActive = true;
    database.journalEnd = Math.max(database.journalEnd, offset + data.length);
    if (offset === 0) database.journalPageSize = journalPageSize(data) || database.journalPageSize;
    return ALLOW;
  }

  /** The journal is about to end. The record is written first, so that a full disk fails the commit. */
  #finalize(database: CapturedDatabase): Verdict {
    if (database.finalization === 'ready') return ALLOW;
    if (database.finalization === 'none') {
      if (database.isBusy) return this.#waitFor(database);
      if (!database.isDirty) return ALLOW;
      database.captureFile(false);
    }
    return this.#outcome(database, database.finalization === 'working');
  }

  #finalized(database: CapturedDatabase): void {
    database.isJournalActive = false;
    database.journalEnd = 0;
    database.publish();
    if (database.isBusy) this.#databases.schedule(database);
  }

  /** The end of a transaction that has no journal. */
  #captureFile(database: CapturedDatabase): Verdict {
    if (database.isJournalActive || database.isWalActive || !database.isDirty) return ALLOW;
    if (!database.isBusy) database.captureFile(true);
    return this.#outcome(database, database.isBusy);
  }

  #outcome(database: CapturedDatabase, isWorking: boolean): Verdict {
    if (database.failure !== undefined) return database.takeFailure(error => errnoOf(error) ?? EIO);
    return isWorking ? this.#waitFor(database) : ALLOW;
  }

  #waitFor(database: CapturedDatabase): Verdict {
    this.#databases.schedule(database);
    return database.waits;
  }

  #walCut(database: CapturedDatabase, size: number): void {
    if (size === 0) this.#walGone(database);
    else if (database.noteWal(database.tracker.truncated(size))) this.#databases.schedule(database);
  }

  #walGone(database: CapturedDatabase): void {
    const {tracker} = database;
    const pgnos = tracker.pgnosOf(0, tracker.committedCount).slice();
    tracker.reset();
    database.files.walGone();
    if (pgnos.length === 0 || database.store === undefined) return;
    if (database.isDirty) {
      database.dirtyFile.noteUnknown(); // Somebody is putting another file in its place: it is captured when it is whole.
      return;
    }
    database.captureAfterWal(pgnos);
    this.#databases.schedule(database);
  }

  #dropped(database: CapturedDatabase): void {
    this.forget(database);
    this.#databases.drop(database);
  }

  #renameDatabase(database: CapturedDatabase, newPath: string): void {
    this.forget(database);
    if (fileRole(newPath).role === 'main') this.#databases.rename(database, newPath);
    else this.#databases.drop(database);
  }

  /** The database was unloaded: what was remembered of its files is void. */
  forget(database: CapturedDatabase): void {
    for (const [nodeid, file] of this.#byNodeid)
      if (file?.database === database) this.#byNodeid.delete(nodeid);
  }

  /** The databases were unloaded: what was remembered of their files is void. */
  forgetAll(): void {
    this.#byNodeid.clear();
  }
}
