import {closeSync} from 'node:fs';
import type {LockBytes} from '../../sqlite/lock-bytes.ts';
import {frameOffset, WAL_FRAME_HEADER_SIZE} from '../../sqlite/wal.ts';
import {ApplyError} from './error.ts';
import type {FollowerFiles} from './follower-files.ts';
import type {Applied, PageTransaction, WalPosition} from './page-transaction.ts';
import {ShmLocks} from './shm-locks.ts';
import {ShmMapping} from './shm-mapping.ts';
import {WalCheckpoint} from './wal-checkpoint.ts';
import {WalCore} from './wal-core.ts';
import {recoverWalIndex} from './wal-recover.ts';
import {appendTransaction, restartIfDrained} from './wal-writer.ts';

export interface FollowerWalOptions {
  readonly files: FollowerFiles;
  readonly lockBytes: LockBytes;
  readonly randomU32: () => number;
  /** A WAL file larger than this many bytes is cut to nothing when it begins anew. */
  readonly walSizeMax: number;
  /** Calls until it returns true, for a short while; false when the time was over. */
  readonly retry: (attempt: () => boolean) => boolean;
}

/**
 * The follower as the writer of a database's write-ahead log. It holds WRITE and CKPT for as long as it's
 * open.
 */
export class FollowerWal {
  readonly #options: FollowerWalOptions;
  readonly #shmFd: number;
  readonly #mapping: ShmMapping;
  readonly #core: WalCore;
  #checkpoint: WalCheckpoint | undefined;
  #isDraining = false;
  /** Number of the last frame when readers kept a checkpoint from copying all; 0 when they didn't. */
  #heldBackAtFrame = 0;
  #isClosed = false;

  private constructor(options: FollowerWalOptions, shmFd: number, mapping: ShmMapping, core: WalCore) {
    this.#options = options;
    this.#shmFd = shmFd;
    this.#mapping = mapping;
    this.#core = core;
  }

  /**
   * Opens, or makes, `-wal` and `-shm`, takes the locks and recovers. Throws `APPLY_LOCKED` when a writer is
   * at it.
   */
  static open(options: FollowerWalOptions): FollowerWal {
    const {files} = options;
    const shmFd = files.openMountedCompanion('follower-shm:open', '-shm');
    const mapping = new ShmMapping(files.disk, shmFd);
    let walFd = -1;
    try {
      const locks = new ShmLocks(shmFd);
      takeLocks(options, locks, () => files.disk.truncate('follower-shm:clear', shmFd, 0));
      if (files.companionSize('-wal') < 0)
        closeSync(files.openMountedCompanion('follower-wal:create', '-wal'));
      walFd = files.openCompanion('follower-wal:open', '-wal');
      const core = new WalCore({...options, walFd, mapping, locks});
      recoverWalIndex(core);
      // Frames that a killed daemon had written and not yet put into the kernel's cache are published now.
      files.cache.invalidate('wal');
      return new FollowerWal(options, shmFd, mapping, core);
    } catch (error) {
      mapping.unmap();
      if (walFd >= 0) closeSync(walFd);
      closeSync(shmFd);
      throw error;
    }
  }

  /** In bytes; 0 before the first transaction of a new database. */
  get pageSize(): number {
    return this.#core.header.pageSize;
  }

  get position(): WalPosition {
    const {salt1, salt2, mxFrame} = this.#core.header;
    return {salt1, salt2, mxFrame};
  }

  /** Frames that are not in the database file yet. */
  get pendingFrameCount(): number {
    return this.#core.header.mxFrame - this.#core.info.nBackfill;
  }

  get backfilledFrameCount(): number {
    return this.#core.info.nBackfill;
  }

  /** Database size in pages by the log; 0 when the log doesn't say and the file does. */
  get pageCount(): number {
    return this.#core.header.nPage;
  }

  /** True when the frames fill more than `walSizeMax` bytes. */
  get isOversized(): boolean {
    const {mxFrame, pageSize} = this.#core.header;
    return mxFrame > 0 && frameOffset(mxFrame, pageSize) > this.#options.walSizeMax;
  }

  append(transaction: PageTransaction): Applied {
    restartIfDrained(this.#core, this.#options.walSizeMax);
    return appendTransaction(this.#core, transaction);
  }

  /** Fills `target`, one page, from the log. False when the page is to be read from the database file. */
  readPage(pgno: number, target: Uint8Array): boolean {
    const {table, header, walFd, files} = this.#core;
    const frame = table.find(pgno, header.mxFrame);
    if (frame === 0) return false;
    const position = frameOffset(frame - 1, header.pageSize) + WAL_FRAME_HEADER_SIZE;
    if (files.disk.read(walFd, target, position) < target.length) {
      throw new ApplyError('APPLY_CORRUPT', 'Cannot read page: the WAL is shorter than its index says', {
        pgno,
      });
    }
    return true;
  }

  /**
   * True while a checkpoint is under way, and when `frameCount` frames wait for one; if readers held the last
   * one back, only after a good part of that number has come in addition.
   */
  isCheckpointDue(frameCount: number): boolean {
    if (this.#isDraining) return true;
    if (this.pendingFrameCount < frameCount) return false;
    const {mxFrame} = this.#core.header;
    return mxFrame < this.#heldBackAtFrame || mxFrame >= this.#heldBackAtFrame + frameCount / 4;
  }

  /**
   * Goes on with a checkpoint, or begins one; true when there is no more to copy now. What is appended
   * between steps is copied too: only a WAL that is in the database file to its last frame can begin anew.
   */
  checkpointStep(isTimeUp: () => boolean): boolean {
    this.#isDraining = true;
    do {
      this.#checkpoint ??= WalCheckpoint.begin(this.#core);
      if (this.#checkpoint === undefined) {
        this.#isDraining = false;
        this.#heldBackAtFrame = this.pendingFrameCount > 0 ? this.#core.header.mxFrame : 0;
        return true;
      }
      if (!this.#stepCheckpoint(this.#checkpoint, isTimeUp)) return false;
    } while (!isTimeUp());
    return false;
  }

  #stepCheckpoint(checkpoint: WalCheckpoint, isTimeUp: () => boolean): boolean {
    let isOver = true;
    try {
      isOver = checkpoint.step(isTimeUp);
    } finally {
      if (isOver) this.#checkpoint = undefined;
    }
    return isOver;
  }

  restart(): boolean {
    return restartIfDrained(this.#core, this.#options.walSizeMax);
  }

  sync(): void {
    const {files, walFd} = this.#core;
    if (files.isSynced) files.disk.sync('follower-wal:sync', walFd);
  }

  /** Leaves the files as they are and lets go of all locks: apps go on where they are. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#checkpoint?.abort();
    this.#checkpoint = undefined;
    this.#mapping.unmap();
    closeSync(this.#core.walFd);
    closeSync(this.#shmFd);
  }

  /**
   * Closes and removes the files, as SQLite's last connection does. The caller is alone and has checkpointed
   * all.
   */
  remove(): void {
    const {files} = this.#options;
    this.close();
    files.unlinkCompanion('follower-wal:unlink-shm', '-shm');
    files.unlinkCompanion('follower-wal:unlink', '-wal');
  }
}

function takeLocks(options: FollowerWalOptions, locks: ShmLocks, first: () => void): void {
  const steps: [string, () => boolean][] = [
    ['DMS', () => locks.tryJoin(first)],
    ['WRITE', () => locks.tryWrite()],
    ['CKPT', () => locks.tryCheckpoint()],
  ];
  for (const [lock, attempt] of steps) {
    if (!options.retry(attempt))
      throw new ApplyError('APPLY_LOCKED', `Cannot follow database: ${lock} is locked`, {lock});
  }
}
