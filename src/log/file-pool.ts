import {constants} from 'node:fs';
import type {Disk} from '../lib/disk.ts';

/**
 * Keeps a bounded number of files open, by path; the one that was used longest ago is closed first. While
 * descriptors are lent (another thread syncs them), none is closed: a reused number would make it sync another file.
 */
export class FilePool {
  readonly #disk: Disk;
  readonly #openMax: number;
  readonly #fds = new Map<string, number>();
  #retired: number[] = [];
  #isLent = false;

  constructor(disk: Disk, openMax: number) {
    this.#disk = disk;
    this.#openMax = openMax;
  }

  /** The descriptor of `path`, opened with `flags` when it is not open yet. Do not keep it: ask again. */
  open(name: string, path: string, flags: number = constants.O_RDWR): number {
    const known = this.#fds.get(path);
    if (known !== undefined) {
      this.#fds.delete(path);
      this.#fds.set(path, known);
      return known;
    }
    const fd = this.#disk.open(name, path, flags);
    this.#fds.set(path, fd);
    if (this.#fds.size > this.#openMax) this.#closeOldest();
    return fd;
  }

  /** Closes `path`, because the file is to be removed or was replaced. */
  forget(path: string): void {
    const fd = this.#fds.get(path);
    if (fd === undefined) return;
    this.#fds.delete(path);
    this.#retire(fd);
  }

  /** From now on descriptors stay open, until `settle`. */
  lend(): void {
    this.#isLent = true;
  }

  /** Nobody else uses our descriptors any more. */
  settle(): void {
    this.#isLent = false;
    const retired = this.#retired;
    this.#retired = [];
    for (const fd of retired) this.#disk.close(fd);
  }

  /** Closes everything, lent or not. */
  close(): void {
    this.settle();
    for (const fd of this.#fds.values()) this.#disk.close(fd);
    this.#fds.clear();
  }

  #closeOldest(): void {
    const oldest = this.#fds.keys().next();
    if (!oldest.done) this.forget(oldest.value);
  }

  #retire(fd: number): void {
    if (this.#isLent) this.#retired.push(fd);
    else this.#disk.close(fd);
  }
}
