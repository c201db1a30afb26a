import {
  closeSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import {dirname} from 'node:path';

/**
 * The disk calls that matter for durability, each with a name (`<what>:<step>`), so that a test can
 * fail or crash just one of them. `onCall` runs before the call named; what it throws replaces the call.
 */
export interface DiskHooks {
  readonly onCall?: (name: string) => void;
}

/** Synchronous disk access with named calls. All offsets and sizes are bytes; errors are Node's, with `code`. */
export class Disk {
  readonly #onCall: ((name: string) => void) | undefined;

  constructor(hooks: DiskHooks = {}) {
    this.#onCall = hooks.onCall;
  }

  open(name: string, path: string, flags: number, mode = 0o600): number {
    this.#onCall?.(name);
    return openSync(path, flags, mode);
  }

  close(fd: number): void {
    closeSync(fd);
  }

  size(fd: number): number {
    return fstatSync(fd).size;
  }

  /** Reads into `target` until it is full or the file ends. Returns the number of bytes read. */
  read(fd: number, target: Uint8Array, position: number): number {
    let count = 0;
    while (count < target.length) {
      const n = readSync(fd, target, count, target.length - count, position + count);
      if (n === 0) break;
      count += n;
    }
    return count;
  }

  /** Writes all of `bytes` at `position`. */
  write(name: string, fd: number, bytes: Uint8Array, position: number): void {
    this.#onCall?.(name);
    let count = 0;
    while (count < bytes.length) count += writeSync(fd, bytes, count, bytes.length - count, position + count);
  }

  truncate(name: string, fd: number, size: number): void {
    this.#onCall?.(name);
    ftruncateSync(fd, size);
  }

  /** `fdatasync`: after it returns the file's bytes and size survive a loss of power. */
  sync(name: string, fd: number): void {
    this.#onCall?.(name);
    fdatasyncSync(fd);
  }

  rename(name: string, from: string, to: string): void {
    this.#onCall?.(name);
    renameSync(from, to);
  }

  unlink(name: string, path: string): void {
    this.#onCall?.(name);
    unlinkSync(path);
  }

  /** Creates `path` and its missing parents. */
  makeDirectory(name: string, path: string): void {
    this.#onCall?.(name);
    mkdirSync(path, {recursive: true, mode: 0o700});
  }

  /** Makes the names in the folder `path` durable. */
  syncDirectory(name: string, path: string): void {
    this.#onCall?.(name);
    const fd = openSync(path, 'r');
    try {
      fdatasyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** Replaces the file `path` by one that holds `bytes`: after a crash it holds the old or the new ones, whole. */
  writeFileAtomic(name: string, path: string, bytes: Uint8Array): void {
    const temporary = `${path}.tmp`;
    const fd = this.open(`${name}-create`, temporary, 0o1101 /* O_WRONLY | O_CREAT | O_TRUNC */);
    try {
      this.write(`${name}-write`, fd, bytes, 0);
      this.sync(`${name}-sync`, fd);
    } finally {
      closeSync(fd);
    }
    this.rename(`${name}-rename`, temporary, path);
    this.syncDirectory(`${name}-sync-directory`, dirname(path));
  }
}
