import {existsSync, linkSync, mkdirSync, renameSync, rmSync, unlinkSync} from 'node:fs';
import {dirname, join} from 'node:path';

/** A database's files as SQLite names them. The database itself comes last: whoever finds it finds the others gone or there. */
const SUFFIXES = ['-journal', '-wal', '-shm', ''] as const;

/**
 * Moves and removes the files of followed databases through the mount, so that the kernel knows, under the names that
 * the primary gave them.
 */
export class DatabaseFiles {
  readonly #mount: string;
  readonly #backing: string;

  constructor(mountDirectory: string, filesDirectory: string) {
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

  rename(name: string, newName: string): void {
    mkdirSync(dirname(join(this.#mount, newName)), {recursive: true});
    for (const suffix of SUFFIXES) {
      if (existsSync(join(this.#backing, name + suffix)))
        renameSync(join(this.#mount, name + suffix), join(this.#mount, newName + suffix));
    }
  }

  remove(name: string): void {
    for (const suffix of SUFFIXES) {
      if (existsSync(join(this.#backing, name + suffix))) unlinkSync(join(this.#mount, name + suffix));
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
