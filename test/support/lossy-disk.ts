import {execFile} from 'node:child_process';
import {mkdtempSync, rmSync, statSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {promisify} from 'node:util';

const run = promisify(execFile);
const COPY_TRIES = 50;
const UNMOUNT_TRIES = 100;

/**
 * A file system of its own, ext4 in a file, that can lose power: of what was written, the file holds only what the kernel has
 * flushed to it, as a disk would. After `losePower` a copy of that file, taken at one moment, is mounted in its place.
 */
export class LossyDisk {
  readonly #directory = mkdtempSync(join(tmpdir(), 'ferrite-test-disk-'));
  readonly #sizeMib: number;
  #generation = 0;
  #mountPoint: string | undefined;

  constructor(sizeMib: number) {
    this.#sizeMib = sizeMib;
  }

  /** Makes the file system and mounts it on an empty folder. */
  async mount(mountPoint: string): Promise<void> {
    await run('truncate', ['-s', `${this.#sizeMib}M`, this.#image]);
    await run('mkfs.ext4', ['-q', '-F', this.#image]);
    await run('mount', ['-o', 'loop', this.#image, mountPoint]);
    this.#mountPoint = mountPoint;
  }

  /** Who has files open on it must be gone, or about to go. */
  async losePower(): Promise<void> {
    const mountPoint = this.#mountPoint;
    if (mountPoint === undefined) throw new Error('Cannot lose power: nothing is mounted');
    const lost = this.#image;
    this.#generation++;
    await copyAtOneMoment(lost, this.#image);
    await unmountSoon(mountPoint);
    rmSync(lost);
    await run('mount', ['-o', 'loop', this.#image, mountPoint]);
  }

  async destroy(): Promise<void> {
    if (this.#mountPoint !== undefined) await run('umount', ['-l', this.#mountPoint]);
    rmSync(this.#directory, {recursive: true, force: true});
  }

  get #image(): string {
    return join(this.#directory, `disk-${this.#generation}`);
  }
}

/** Killed processes need a moment to let go. */
async function unmountSoon(mountPoint: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await run('umount', [mountPoint]);
      return;
    } catch (error) {
      if (tries >= UNMOUNT_TRIES) throw error;
      await sleep(100);
    }
  }
}

/** Copies a file that the kernel may be writing to, as it stood at some moment. */
async function copyAtOneMoment(from: string, to: string): Promise<void> {
  for (let tries = 0; tries < COPY_TRIES; tries++) {
    const before = statSync(from, {bigint: true}).mtimeNs;
    await run('cp', ['--sparse=always', from, to]);
    if (statSync(from, {bigint: true}).mtimeNs === before) return;
  }
  throw new Error('Cannot copy the disk: it is written to all the time');
}
