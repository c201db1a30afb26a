import {constants, fstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {dirname, join, relative} from 'node:path';
import {Disk, type DiskHooks} from '../../src/lib/disk.ts';
import type {Random} from './support.ts';

type FileChange = {readonly offset: number; readonly bytes: Uint8Array} | {readonly size: number};

interface FileImage {
  durable: Uint8Array;
  readonly pending: FileChange[];
}

type NameChange = {readonly path: string; readonly file: FileImage | undefined};

const SECTOR_SIZE = 512;

/**
 * A disk that can lose power: it remembers which writes were synced. `lose` makes a folder as it might be found
 * afterwards: of the writes that were not synced, any sectors may be there or not, in any combination; of the names,
 * a folder keeps the first few changes since it was synced.
 */
export class PowerLossDisk extends Disk {
  readonly #root: string;
  readonly #files = new Map<number, FileImage>();
  readonly #directories = new Map<number, string>();
  readonly #names = new Map<string, FileImage>();
  readonly #durableNames = new Map<string, FileImage>();
  #pendingNames: NameChange[] = [];

  constructor(root: string, hooks: DiskHooks = {}) {
    super(hooks);
    this.#root = root;
    for (const entry of readdirSync(root, {recursive: true, withFileTypes: true})) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      const file: FileImage = {durable: readFileSync(path), pending: []};
      this.#names.set(path, file);
      this.#durableNames.set(path, file);
    }
  }

  override open(name: string, path: string, flags: number, mode?: number): number {
    const fd = super.open(name, path, flags, mode);
    if (fstatSync(fd).isDirectory()) {
      this.#directories.set(fd, path);
      return fd;
    }
    let file = this.#names.get(path);
    if (file === undefined) {
      file = {durable: new Uint8Array(0), pending: []};
      this.#name(path, file);
    }
    if ((flags & constants.O_TRUNC) !== 0) file.pending.push({size: 0});
    this.#files.set(fd, file);
    return fd;
  }

  override close(fd: number): void {
    this.#files.delete(fd);
    this.#directories.delete(fd);
    super.close(fd);
  }

  override write(name: string, fd: number, bytes: Uint8Array, position: number): void {
    super.write(name, fd, bytes, position);
    this.#files.get(fd)?.pending.push({offset: position, bytes: bytes.slice()});
  }

  override truncate(name: string, fd: number, size: number): void {
    super.truncate(name, fd, size);
    this.#files.get(fd)?.pending.push({size});
  }

  override sync(name: string, fd: number): void {
    super.sync(name, fd);
    const directory = this.#directories.get(fd);
    if (directory !== undefined) this.#syncNames(directory);
    const file = this.#files.get(fd);
    if (file === undefined) return;
    file.durable = file.pending.splice(0).reduce(apply, file.durable);
  }

  override rename(name: string, from: string, to: string): void {
    super.rename(name, from, to);
    const file = this.#names.get(from);
    // One step for the file system, so the old name goes only together with the new one.
    this.#name(to, file);
    this.#names.delete(from);
  }

  override unlink(name: string, path: string): void {
    super.unlink(name, path);
    this.#name(path, undefined);
  }

  override syncDirectory(name: string, path: string): void {
    super.syncDirectory(name, path);
    this.#syncNames(path);
  }

  /** Writes what is left after a loss of power to the folder `target`. */
  lose(target: string, random: Random): void {
    const names = new Map(this.#durableNames);
    const kept = new Map<string, number>();
    for (const change of this.#pendingNames) {
      const directory = dirname(change.path);
      const left = kept.get(directory) ?? random(this.#pendingNames.length + 1);
      kept.set(directory, left - 1);
      if (left > 0) setName(names, change);
    }
    for (const [path, file] of names) {
      const to = join(target, relative(this.#root, path));
      mkdirSync(dirname(to), {recursive: true});
      writeFileSync(
        to,
        file.pending.flatMap(change => survivors(change, random)).reduce(apply, file.durable),
      );
    }
  }

  #name(path: string, file: FileImage | undefined): void {
    setName(this.#names, {path, file});
    this.#pendingNames.push({path, file});
  }

  #syncNames(directory: string): void {
    for (const change of this.#pendingNames) {
      if (dirname(change.path) === directory) setName(this.#durableNames, change);
    }
    this.#pendingNames = this.#pendingNames.filter(({path}) => dirname(path) !== directory);
  }
}

function setName(names: Map<string, FileImage>, {path, file}: NameChange): void {
  if (file === undefined) names.delete(path);
  else names.set(path, file);
}

function apply(content: Uint8Array, change: FileChange): Uint8Array {
  const size = 'size' in change ? change.size : Math.max(content.length, change.offset + change.bytes.length);
  const result = new Uint8Array(size);
  result.set(content.subarray(0, size));
  if ('bytes' in change) result.set(change.bytes, change.offset);
  return result;
}

/** The parts of a change that reach the disk: all, none, or any sectors of it. */
function survivors(change: FileChange, random: Random): FileChange[] {
  const mode = random(4);
  if (mode === 0) return [];
  if (mode === 1 || 'size' in change) return [change];
  const parts: FileChange[] = [];
  for (let start = change.offset; start < change.offset + change.bytes.length; ) {
    const end = Math.min(
      (Math.floor(start / SECTOR_SIZE) + 1) * SECTOR_SIZE,
      change.offset + change.bytes.length,
    );
    const bytes = change.bytes.subarray(start - change.offset, end - change.offset);
    if (random(2) === 0) parts.push({offset: start, bytes});
    start = end;
  }
  return parts;
}
