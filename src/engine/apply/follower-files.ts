import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  mkdirSync,
  type Stats,
  statSync,
} from 'node:fs';
import {dirname} from 'node:path';
import {assert} from '../../lib/assert.ts';
import type {Disk} from '../../lib/disk.ts';
import {ApplyError} from './error.ts';
import type {KernelCache} from './page-transaction.ts';

/** Bytes that go to the disk and to the kernel's cache at once, unless the caller's buffer says otherwise. */
const BUFFER_SIZE = 1024 * 1024;
/** A buffer must hold a largest page, and what goes around it. */
const BUFFER_SIZE_MIN = 128 * 1024;

export type Companion = '-wal' | '-shm' | '-journal';

export interface FollowerFilesOptions {
  readonly disk: Disk;
  /** Path of the database file in the data directory. */
  readonly backing: string;
  /** Path of the same file through the mount. */
  readonly mounted: string;
  readonly cache: KernelCache;
  /** 'normal' flushes to the disk where SQLite with synchronous=NORMAL would, 'off' nowhere. */
  readonly sync: 'normal' | 'off';
  /**
   * Room to gather bytes in, 128 KiB or more; all databases of a thread may have the same. Default 1 MiB of
   * its own.
   */
  readonly buffer?: Uint8Array;
}

/**
 * The files of one followed database. Bytes are written to the backing files and then put into the kernel's
 * cache; what changes names and sizes goes through the mount, so that the kernel knows of it at once.
 */
export class FollowerFiles {
  readonly disk: Disk;
  readonly cache: KernelCache;
  readonly isSynced: boolean;
  /** Room to gather bytes in, for use within one call. */
  readonly buffer: Uint8Array;
  readonly #backing: string;
  readonly #mounted: string;
  #fd = -1;
  #mountedFd = -1;

  constructor(options: FollowerFilesOptions) {
    this.disk = options.disk;
    this.cache = options.cache;
    this.isSynced = options.sync === 'normal';
    this.buffer = options.buffer ?? new Uint8Array(BUFFER_SIZE);
    assert(this.buffer.length >= BUFFER_SIZE_MIN, 'the buffer holds a page and its header');
    this.#backing = options.backing;
    this.#mounted = options.mounted;
  }

  get databaseExists(): boolean {
    return existsSync(this.#backing);
  }

  /** Descriptor of the mounted database file: for its locks and its size. */
  get mountedFd(): number {
    return this.#mountedFd;
  }

  get databaseSize(): number {
    return this.disk.size(this.#fd);
  }

  /**
   * Opens the database file on both sides; `mode` is for making it, undefined means that it must be there.
   */
  openDatabase(createMode?: number): void {
    const {O_RDWR, O_CREAT} = constants;
    const flags = createMode === undefined ? O_RDWR : O_RDWR | O_CREAT;
    if (createMode !== undefined) mkdirSync(dirname(this.#mounted), {recursive: true, mode: 0o755});
    this.#mountedFd = this.disk.open('follower:open-mounted', this.#mounted, flags, createMode);
    this.#fd = this.disk.open('follower:open', this.#backing, O_RDWR);
  }

  closeDatabase(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    if (this.#mountedFd >= 0) closeSync(this.#mountedFd);
    this.#fd = -1;
    this.#mountedFd = -1;
  }

  /** Fills `target` from `offset` of the database file; returns the number of bytes that were there. */
  readDatabase(target: Uint8Array, offset: number): number {
    return this.disk.read(this.#fd, target, offset);
  }

  writeDatabase(name: string, bytes: Uint8Array, offset: number): void {
    this.disk.write(name, this.#fd, bytes, offset);
    this.cache.store('database', offset, bytes);
  }

  truncateDatabase(name: string, size: number): void {
    if (this.databaseSize !== size) this.disk.truncate(name, this.#mountedFd, size);
  }

  syncDatabase(name: string): void {
    if (this.isSynced) this.disk.sync(name, this.#fd);
  }

  /** Bytes in the companion file, or -1 when there is none. */
  companionSize(companion: Companion): number {
    return statSync(this.#backing + companion, {throwIfNoEntry: false})?.size ?? -1;
  }

  /** Opens the backing side of a companion file that exists. */
  openCompanion(name: string, companion: Companion): number {
    return this.disk.open(name, this.#backing + companion, constants.O_RDWR);
  }

  /**
   * Opens a companion file through the mount and makes it, with the database's owner and mode, if it isn't
   * there.
   */
  openMountedCompanion(name: string, companion: Companion): number {
    const path = this.#mounted + companion;
    const isNew = this.companionSize(companion) < 0;
    const status = fstatSync(this.#mountedFd);
    const mode = status.mode & 0o777;
    const fd = this.disk.open(name, path, constants.O_RDWR | constants.O_CREAT, mode);
    if (isNew) adapt(fd, status);
    return fd;
  }

  truncateCompanion(name: string, companion: Companion, size: number): void {
    const fd = this.disk.open(`${name}-open`, this.#mounted + companion, constants.O_RDWR);
    try {
      this.disk.truncate(name, fd, size);
    } finally {
      closeSync(fd);
    }
  }

  unlinkCompanion(name: string, companion: Companion): void {
    this.disk.unlink(name, this.#mounted + companion);
  }

  /** Makes the names of the database's files durable. */
  syncNames(name: string): void {
    if (this.isSynced) this.disk.syncDirectory(name, dirname(this.#backing));
  }

  /**
   * Bytes 16-20 and 18-19 of page 1 in the database file: page size in bytes and read version; 0 for an empty
   * file.
   */
  readHeader(): {readonly pageSize: number; readonly readVersion: number} {
    const header = new Uint8Array(100);
    const count = this.readDatabase(header, 0);
    if (count === 0) return {pageSize: 0, readVersion: 0};
    const packed = (header[16] << 8) | header[17];
    const pageSize = packed === 1 ? 65_536 : packed;
    if (count < 100 || pageSize < 512 || (pageSize & (pageSize - 1)) !== 0) {
      throw new ApplyError('APPLY_CORRUPT', 'Cannot read database header: not a database', {count, pageSize});
    }
    return {pageSize, readVersion: header[19]};
  }
}

/** Gives a new file the owner and mode of the database, where the kernel has not done so already. */
function adapt(fd: number, {mode, uid, gid}: Stats): void {
  const made = fstatSync(fd);
  if ((made.mode & 0o777) !== (mode & 0o777)) fchmodSync(fd, mode & 0o777);
  if (process.geteuid?.() === 0 && (made.uid !== uid || made.gid !== gid)) fchownSync(fd, uid, gid);
}
