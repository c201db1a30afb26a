import {type BigIntStats, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {readIfThere} from '../data-directory.ts';
import type {LeftBehind} from './recover.ts';

/** What the files looked like when the database was closed. */
interface SealedFile {
  readonly ino: string;
  readonly size: string;
  readonly mtimeNs: string;
}

/** Knows a database's file again, wherever it is. */
export interface FileIdentity {
  readonly isOf: (stats: BigIntStats) => boolean;
}

/**
 * Marks which databases are in use (`<data>/active/<id>`, with inode number and time of birth of the file) and what the files of the others looked like when they were
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

  open(id: string, path: string): void {
    const stats = statSync(path, {bigint: true, throwIfNoEntry: false});
    writeFileSync(
      join(this.#activeDirectory, id),
      stats === undefined ? '' : `${stats.ino} ${stats.birthtimeNs}`,
    );
  }

  /**
   * The file that the database had when it was last used here, or undefined when this node never wrote one. On file systems
   * that keep no time of birth no file is known again, since inode numbers are.
   */
  identity(id: string): FileIdentity | undefined {
    const mark = readIfThere(join(this.#activeDirectory, id));
    if (mark !== undefined && mark !== '')
      return {isOf: ({ino, birthtimeNs}) => birthtimeNs > 0n && mark === `${ino} ${birthtimeNs}`};
    const seal = this.#read(id);
    if (seal === undefined) return undefined;
    const [main] = JSON.parse(seal) as (SealedFile | null)[];
    return {
      isOf: ({ino, size, mtimeNs}) =>
        main?.ino === String(ino) && main.size === String(size) && main.mtimeNs === String(mtimeNs),
    };
  }

  /** Nothing is known of the files: the next `leftBehind` is "unknown". */
  void(id: string): void {
    rmSync(join(this.#databasesDirectory, id, 'seal'), {force: true});
    this.forget(id);
  }

  close(id: string, path: string): void {
    writeFileSync(join(this.#databasesDirectory, id, 'seal'), describe(path));
    this.forget(id);
  }

  forget(id: string): void {
    rmSync(join(this.#activeDirectory, id), {force: true});
  }

  #read(id: string): string | undefined {
    return readIfThere(join(this.#databasesDirectory, id, 'seal'));
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
