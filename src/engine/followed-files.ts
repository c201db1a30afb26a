import {existsSync, constants as fsConstants, readFileSync} from 'node:fs';
import {constants} from 'node:os';
import {join} from 'node:path';
import {FUSE_WRITE_CACHE} from '../fuse/opcodes.ts';
import type {FuseRequest} from '../fuse/request.ts';
import {hasJournalMagic} from '../sqlite/journal.ts';
import {readJournalHeader} from './capture/recover.ts';
import type {Catalog} from './catalog.ts';
import {ALLOW, type DatabaseHooks, type Verdict} from './mount/database-hooks.ts';
import type {Inode, InodeTable} from './mount/inode-table.ts';
import {fileRole} from './mount/names.ts';

const {EACCES, EROFS} = constants.errno;
const O_ACCMODE = 3;
const WRITE_FLAGS_OFFSET = 20; // struct fuse_write_in.write_flags

export interface FollowedFilesOptions {
  readonly inodes: InodeTable;
  readonly catalog: Catalog;
  readonly databasesDirectory: string;
  readonly filesDirectory: string;
  readonly followerWrites: 'busy' | 'readonly';
  /** An app opened a database whose locks the daemon doesn't hold yet. */
  readonly onOpened: (id: string) => void;
}

/**
 * The mount's files on a follower: only the daemon itself changes databases. Apps normally don't come this far, since
 * the daemon holds SQLite's locks and they get SQLITE_BUSY; who slips in while a new daemon takes over is refused.
 * The -shm stays writable: readers keep their read marks there.
 */
export class FollowedFiles implements DatabaseHooks {
  readonly #options: FollowedFilesOptions;
  readonly #names = new Map<string, string>();
  /** Databases whose locks the apply thread holds: no app can be in the middle of a rollback there. */
  readonly #attached = new Set<string>();
  readonly #asked = new Set<string>();
  /** Names that databases had when the daemon before died in the middle of a rename, by ID. */
  readonly #formerNames: Map<string, string>;

  constructor(options: FollowedFilesOptions) {
    this.#options = options;
    const {catalog} = options;
    this.#formerNames = new Map(catalog.formerNames);
    for (const [id, name] of this.#formerNames) this.#names.set(name, id);
    for (const [id, name] of catalog.entries()) this.#names.set(name, id);
  }

  /** The database has this name, and no other any more. */
  add(id: string, name: string): void {
    this.#forgetNames(id);
    this.#names.set(name, id);
  }

  /** Its files are about to move to this name: until `add` they are guarded under both. */
  moving(id: string, name: string): void {
    this.#names.set(name, id);
  }

  attached(id: string): void {
    this.#attached.add(id);
    const former = this.#formerNames.get(id);
    if (former === undefined) return;
    if (this.#names.get(former) === id) this.#names.delete(former);
    this.#formerNames.delete(id);
  }

  remove(id: string): void {
    this.#attached.delete(id);
    this.#asked.delete(id);
    this.#forgetNames(id);
  }

  #forgetNames(id: string): void {
    for (const [name, known] of this.#names) if (known === id) this.#names.delete(name);
  }

  beforeOpen(inode: Inode, flags: number, request: FuseRequest): Verdict {
    const isReading = (flags & O_ACCMODE) === fsConstants.O_RDONLY;
    if (isReading || this.#options.followerWrites === 'busy' || isOwn(request)) return ALLOW;
    return this.#isGuarded(inode) ? EACCES : ALLOW;
  }

  opened(inode: Inode): void {
    if (inode.isDirectory || inode.isHidden || inode.role !== 'main') return;
    const id = this.#names.get(this.#options.inodes.relativePath(inode));
    if (id === undefined || this.#attached.has(id) || this.#asked.has(id)) return;
    this.#asked.add(id);
    this.#options.onOpened(id);
  }

  /** SQLite turns EACCES for a new journal into "attempt to write a readonly database". */
  beforeCreate(parent: Inode, name: string, request: FuseRequest): Verdict {
    const {role} = fileRole(name);
    if ((role !== 'journal' && role !== 'wal') || isOwn(request)) return ALLOW;
    return this.#isDatabaseBeside(parent, name) ? EACCES : ALLOW;
  }

  created(): void {}

  beforeWrite(inode: Inode, _offset: number, _data: Buffer, request: FuseRequest): Verdict {
    if (inode.isDirectory || !this.#isGuarded(inode)) return ALLOW;
    if (isOwn(request) || this.#isRollingBack(inode)) return ALLOW;
    const isWriteBack = (request.u32(WRITE_FLAGS_OFFSET) & FUSE_WRITE_CACHE) !== 0;
    return isWriteBack ? ALLOW : EROFS;
  }

  wrote(): void {}

  beforeTruncate(inode: Inode, _size: number, request: FuseRequest): Verdict {
    if (inode.isDirectory || isOwn(request)) return ALLOW;
    if (this.#isRollingBack(inode)) return ALLOW;
    return this.#isGuarded(inode) || this.#isHeldShm(inode) ? EROFS : ALLOW;
  }

  truncated(): void {}

  beforeUnlink(inode: Inode, request: FuseRequest): Verdict {
    if (inode.isDirectory || isOwn(request)) return ALLOW;
    if (inode.role === 'journal' && this.#isRollingBack(inode)) return ALLOW;
    return this.#isGuarded(inode) || this.#isFollowedShm(inode) ? EROFS : ALLOW;
  }

  unlinked(): void {}

  beforeRename(inode: Inode, target: Inode | undefined, _newPath: string, request: FuseRequest): Verdict {
    if (isOwn(request)) return ALLOW;
    for (const moved of [inode, target]) {
      if (moved === undefined) continue;
      if (
        moved.isDirectory ? this.#holdsDatabases(moved) : this.#isGuarded(moved) || this.#isFollowedShm(moved)
      )
        return EROFS;
    }
    return ALLOW;
  }

  renamed(): void {}

  beforeSync(): Verdict {
    return ALLOW;
  }

  released(): void {}

  /** The apply thread keeps the position in a small file. */
  positionText(path: string): string | undefined {
    const id = this.#names.get(path);
    if (id === undefined) return undefined;
    try {
      return readFileSync(join(this.#options.databasesDirectory, id, 'position'), 'utf8').slice(0, 34);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return undefined;
    }
  }

  /**
   * A daemon died in the middle of a rollback-mode transaction, and an app that came before its successor rolls the
   * hot journal back, as SQLite does. That is right, and refusing it would fail the app; a new transaction of its own it
   * can't begin, since it can't create a journal.
   */
  #isRollingBack(inode: Inode): boolean {
    if (inode.isHidden || (inode.role !== 'main' && inode.role !== 'journal')) return false;
    const path = this.#databasePath(inode);
    const id = this.#names.get(path);
    if (id === undefined || this.#attached.has(id)) return false;
    const journal = readJournalHeader(join(this.#options.filesDirectory, `${path}-journal`));
    return journal !== undefined && hasJournalMagic(journal);
  }

  /** The database file, its journal or its WAL. */
  #isGuarded(inode: Inode): boolean {
    if (inode.isHidden || inode.role === 'shm' || inode.role === 'super-journal') return false;
    return this.#names.has(this.#databasePath(inode));
  }

  /**
   * The first who opens a -shm cuts it and rebuilds the wal-index. That is an app when it comes before a new daemon;
   * afterwards the daemon's lock on the DMS byte keeps everybody from it.
   */
  #isHeldShm(inode: Inode): boolean {
    if (!this.#isFollowedShm(inode)) return false;
    const id = this.#names.get(this.#databasePath(inode));
    return id !== undefined && this.#attached.has(id);
  }

  #isFollowedShm(inode: Inode): boolean {
    return !inode.isHidden && inode.role === 'shm' && this.#names.has(this.#databasePath(inode));
  }

  #databasePath(inode: Inode): string {
    const path = this.#options.inodes.relativePath(inode);
    return path.slice(0, path.length - inode.name.length) + fileRole(inode.name).base;
  }

  #isDatabaseBeside(parent: Inode, name: string): boolean {
    return existsSync(this.#options.inodes.childPath(parent, fileRole(name).base));
  }

  #holdsDatabases(folder: Inode): boolean {
    const prefix = `${this.#options.inodes.relativePath(folder)}/`;
    for (const name of this.#names.keys()) if (name.startsWith(prefix)) return true;
    return false;
  }
}

/** Whether a thread of this process asks: the apply thread, or main's pool. */
function isOwn(request: FuseRequest): boolean {
  return request.pid === process.pid || (request.pid !== 0 && existsSync(`/proc/self/task/${request.pid}`));
}
