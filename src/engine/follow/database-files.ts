import {existsSync, linkSync, mkdirSync, rmSync} from 'node:fs';
import {dirname, join} from 'node:path';
import type {Disk} from '../../lib/disk.ts';
import type {Catalog} from '../catalog.ts';

/** A database's files as SQLite names them. The database itself is moved last: whoever finds it finds the others there. */
const SUFFIXES = ['-journal', '-wal', '-shm', ''] as const;

/**
 * Moves and removes the files of followed databases through the mount, so that the kernel knows, under the names that
 * the primary gave them.
 */
export class DatabaseFiles {
  readonly #disk: Disk;
  readonly #mount: string;
  readonly #backing: string;

  constructor(disk: Disk, mountDirectory: string, filesDirectory: string) {
    this.#disk = disk;
    this.#mount = mountDirectory;
    this.#backing = filesDirectory;
  }

  /** Frees `name` for a database: a file of the node's own that has it gets another name, which is returned. */
  makeRoom(name: string, nowMs: number): string | undefined {
    mkdirSync(dirname(join(this.#mount, name)), {recursive: true});
    if (!existsSync(join(this.#backing, name))) {
      for (const suffix of SUFFIXES) rmSync(join(this.#mount, name + suffix), {force: true});
      return undefined;
    }
    const other = `${name}.local-${nowMs}`;
    this.rename(name, other);
    return other;
  }

  /** Moves what is there; a rename that was interrupted goes on when this is called again. Durable when it returns. */
  rename(name: string, newName: string): void {
    mkdirSync(dirname(join(this.#mount, newName)), {recursive: true});
    for (const suffix of SUFFIXES) {
      if (existsSync(join(this.#backing, name + suffix)))
        this.#disk.rename(
          'follow:rename',
          join(this.#mount, name + suffix),
          join(this.#mount, newName + suffix),
        );
    }
    for (const folder of new Set([name, newName].map(each => dirname(join(this.#backing, each)))))
      if (existsSync(folder)) this.#disk.syncDirectory('follow:sync-rename', folder);
  }

  /** The database goes first: without its WAL or its journal it would be something that never was. */
  remove(name: string): void {
    for (const suffix of SUFFIXES.toReversed()) {
      if (existsSync(join(this.#backing, name + suffix)))
        this.#disk.unlink('follow:unlink', join(this.#mount, name + suffix));
    }
  }

  /** Keeps the files in the folder `directory`, outside of the mount, and takes them out of it. */
  setAside(name: string, directory: string): void {
    mkdirSync(directory, {recursive: true, mode: 0o700});
    const flat = name.replaceAll('/', '_');
    for (const suffix of SUFFIXES) {
      if (suffix !== '-shm' && existsSync(join(this.#backing, name + suffix)))
        linkSync(join(this.#backing, name + suffix), join(directory, flat + suffix));
    }
    this.remove(name);
  }
}

/** Moves the files of a database that was given another name, if that is still to be done. Nothing else may happen to them before. */
export function finishRename(id: string, catalog: Catalog, files: DatabaseFiles): void {
  const [from, name] = [catalog.formerNames.get(id), catalog.nameOf(id)];
  if (from === undefined || name === undefined) return;
  files.rename(from, name);
  catalog.set(id, name);
  catalog.sync(); // Before another database may take the old name.
}
