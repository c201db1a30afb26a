import {existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import type {LeftBehind} from './recover.ts';

/** What the files looked like when the database was closed. */
interface SealedFile {
  readonly ino: string;
  readonly size: string;
  readonly mtimeNs: string;
}

/**
 * Marks which databases are in use (`<data>/active/<id>`) and what the files of the others looked like when they were
 * closed (`<data>/databases/<id>/seal`), so that a start need not look into them and still notices what was done
 * to a database behind its back.
 */
export class Seals {
  readonly #activeDirectory: string;
  readonly #databasesDirectory: string;
  readonly #isNewBoot: boolean;

  constructor(dataDirectory: string, isNewBoot: boolean) {
    this.#activeDirectory = join(dataDirectory, 'active');
    this.#databasesDirectory = join(dataDirectory, 'databases');
    this.#isNewBoot = isNewBoot;
    mkdirSync(this.#activeDirectory, {recursive: true, mode: 0o700});
  }

  /** IDs of the databases that were in use when the last daemon ended. */
  active(): string[] {
    return readdirSync(this.#activeDirectory);
  }

  leftBehind(id: string, path: string): LeftBehind {
    if (existsSync(join(this.#activeDirectory, id))) return this.#isNewBoot ? 'unknown' : 'daemon-died';
    const seal = this.#read(id);
    return seal !== undefined && seal === describe(path) ? 'closed' : 'unknown';
  }

  open(id: string): void {
    writeFileSync(join(this.#activeDirectory, id), '');
  }

  close(id: string, path: string): void {
    writeFileSync(join(this.#databasesDirectory, id, 'seal'), describe(path));
    this.forget(id);
  }

  forget(id: string): void {
    rmSync(join(this.#activeDirectory, id), {force: true});
  }

  #read(id: string): string | undefined {
    try {
      return readFileSync(join(this.#databasesDirectory, id, 'seal'), 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return undefined;
    }
  }
}

function describe(path: string): string {
  const files: (SealedFile | null)[] = [path, `${path}-wal`, `${path}-journal`].map(file => {
    const stats = statSync(file, {bigint: true, throwIfNoEntry: false});
    if (stats === undefined) return null;
    return {ino: String(stats.ino), size: String(stats.size), mtimeNs: String(stats.mtimeNs)};
  });
  return JSON.stringify(files);
}
