import {type BigIntStats, mkdirSync, readdirSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {readIfThere} from '../data-directory.ts';
import type {Epoch} from '../messages.ts';
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

// active/ID:  boot | keeper | inode number | time of birth, with a space between. Boot and keeper are those under which
// the database was last known to be what its log says, `-` while that is still to be found out.
const UNCHECKED: Epoch = {boot: '-', run: '-'};

/**
 * Marks which databases are in use (`<data>/active/<id>`) and what the files of the others looked like when they were
 * closed (`<data>/databases/<id>/seal`), so that a start need not look into them and still notices what was done
 * to a database behind its back.
 */
export class Seals {
  readonly #activeDirectory: string;
  readonly #databasesDirectory: string;
  readonly #epoch: Epoch;

  constructor(dataDirectory: string, epoch: Epoch) {
    this.#activeDirectory = join(dataDirectory, 'active');
    this.#databasesDirectory = join(dataDirectory, 'databases');
    this.#epoch = epoch;
    mkdirSync(this.#activeDirectory, {recursive: true, mode: 0o700});
  }

  /** IDs of the databases that were in use when the last daemon ended. */
  active(): string[] {
    return readdirSync(this.#activeDirectory);
  }

  leftBehind(id: string, path: string): LeftBehind {
    const mark = this.#readMark(id);
    if (mark !== undefined) {
      const {boot, run} = this.#epoch;
      return mark[0] === boot && mark[1] === run ? 'daemon-died' : 'unknown';
    }
    const seal = this.#read(id);
    return seal !== undefined && seal === describe(path) ? 'closed' : 'unknown';
  }

  /** The start of the machine under which the database in use was last known to be what its log says. */
  bootOf(id: string): string | undefined {
    return this.#readMark(id)?.[0];
  }

  /**
   * The database is in use. Until `isChecked`, every start finds it "unknown", however often a daemon or the machine dies
   * meanwhile.
   */
  open(id: string, path: string, isChecked: boolean): void {
    const stats = statSync(path, {bigint: true, throwIfNoEntry: false});
    const {boot, run} = isChecked ? this.#epoch : UNCHECKED;
    const mark = `${boot} ${run} ${stats?.ino ?? ''} ${stats?.birthtimeNs ?? ''}`;
    if (this.#readMark(id)?.join(' ') !== mark) writeFileSync(join(this.#activeDirectory, id), mark);
  }

  /**
   * The file that the database had when it was last used here, or undefined when this node never wrote one. On file systems
   * that keep no time of birth no file is known again, since inode numbers are.
   */
  identity(id: string): FileIdentity | undefined {
    const mark = this.#readMark(id);
    if (mark?.[2])
      return {
        isOf: ({ino, birthtimeNs}) =>
          birthtimeNs > 0n && mark[2] === String(ino) && mark[3] === String(birthtimeNs),
      };
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

  #readMark(id: string): readonly string[] | undefined {
    return readIfThere(join(this.#activeDirectory, id))?.split(' ');
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
