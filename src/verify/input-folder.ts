import {constants, fstatSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import type {Disk} from '../lib/disk.ts';
import type {ByteSource} from '../ltx/record-reader.ts';

const SMALL_SIZE_MAX = 256 * 1024 * 1024;

/** A file that is only read. */
export class InputFile implements ByteSource {
  readonly size: number;
  readonly #disk: Disk;
  readonly #fd: number;

  constructor(disk: Disk, fd: number) {
    this.#disk = disk;
    this.#fd = fd;
    this.size = disk.size(fd);
  }

  read(position: number, target: Uint8Array): number {
    return this.#disk.read(this.#fd, target, position);
  }

  /** All bytes, of a file that is small; throws a `RangeError` for any other. */
  readAll(): Buffer {
    if (this.size > SMALL_SIZE_MAX)
      throw Object.assign(new RangeError(`${this.size} bytes`), {code: 'ERR_FS_FILE_TOO_LARGE'});
    const bytes = Buffer.alloc(this.size);
    return bytes.subarray(0, this.read(0, bytes));
  }

  close(): void {
    this.#disk.close(this.#fd);
  }
}

/** The data directory, read and never written. Paths are relative to it. */
export class InputFolder {
  readonly directory: string;
  readonly #disk: Disk;

  constructor(disk: Disk, directory: string) {
    this.#disk = disk;
    this.directory = directory;
  }

  /** Opens an ordinary file, or returns undefined where nothing is. Never waits, whatever it finds there. */
  open(path: string): InputFile | undefined {
    let fd: number;
    try {
      const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
      fd = this.#disk.open('verify:open', join(this.directory, path), flags);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
    if (fstatSync(fd).isFile()) return new InputFile(this.#disk, fd);
    this.#disk.close(fd);
    throw Object.assign(new Error('it is no ordinary file'), {code: 'EINVAL', syscall: 'open'});
  }

  /** The bytes of a small file, or undefined where nothing is. */
  readAll(path: string): Buffer | undefined {
    const file = this.open(path);
    try {
      return file?.readAll();
    } finally {
      file?.close();
    }
  }

  /** Names in a folder, in order; undefined where nothing is. */
  list(path: string): string[] | undefined {
    try {
      return readdirSync(join(this.directory, path)).sort();
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');
}
