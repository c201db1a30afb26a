import {closeSync, constants, fstatSync, openSync, readSync} from 'node:fs';
import type {Disk} from '../../lib/disk.ts';

const NO_FD = -1;

/** Read access to a database's backing file and its -wal, opened when needed. A missing file reads as an empty one. */
export class BackingFiles {
  #path: string;
  #mainFd = NO_FD;
  #walFd = NO_FD;

  constructor(path: string) {
    this.#path = path;
  }

  get path(): string {
    return this.#path;
  }

  get mainSize(): number {
    const fd = this.#main();
    return fd === NO_FD ? 0 : fstatSync(fd).size;
  }

  /** Inode number of the database file, which is its node ID in the mount too. */
  get mainIno(): number {
    const fd = this.#main();
    return fd === NO_FD ? 0 : fstatSync(fd).ino;
  }

  get walSize(): number {
    const fd = this.#wal();
    return fd === NO_FD ? 0 : fstatSync(fd).size;
  }

  readMain(target: Uint8Array, position: number): number {
    return readFully(this.#main(), target, position);
  }

  readonly readWal = (target: Uint8Array, position: number): number =>
    readFully(this.#wal(), target, position);

  /** Reads page `pgno` of the database file; what the file doesn't have reads as zeros, as SQLite takes it. */
  readMainPage(pgno: number, target: Uint8Array): void {
    const count = this.readMain(target, (pgno - 1) * target.length);
    if (count < target.length) target.fill(0, count);
  }

  /** Makes the files durable that are there. Waits for the disk. */
  sync(disk: Disk): void {
    for (const suffix of ['', '-wal', '-journal']) {
      const fd = openIfThere(this.#path + suffix);
      if (fd === NO_FD) continue;
      try {
        disk.sync(`files:sync${suffix}`, fd);
      } finally {
        closeSync(fd);
      }
    }
  }

  walGone(): void {
    if (this.#walFd !== NO_FD) closeSync(this.#walFd);
    this.#walFd = NO_FD;
  }

  /** The files have another path now, or are other files. */
  moved(path: string): void {
    this.close();
    this.#path = path;
  }

  close(): void {
    this.walGone();
    if (this.#mainFd !== NO_FD) closeSync(this.#mainFd);
    this.#mainFd = NO_FD;
  }

  #main(): number {
    if (this.#mainFd === NO_FD) this.#mainFd = openIfThere(this.#path);
    return this.#mainFd;
  }

  #wal(): number {
    if (this.#walFd === NO_FD) this.#walFd = openIfThere(`${this.#path}-wal`);
    return this.#walFd;
  }
}

function openIfThere(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return NO_FD;
  }
}

function readFully(fd: number, target: Uint8Array, position: number): number {
  if (fd === NO_FD) return 0;
  let count = 0;
  while (count < target.length) {
    const n = readSync(fd, target, count, target.length - count, position + count);
    if (n === 0) break;
    count += n;
  }
  return count;
}
