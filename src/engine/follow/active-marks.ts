import {mkdirSync, readdirSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {readIfThere} from '../data-directory.ts';

/**
 * Marks the databases that are in use by a file each (`<data>/active/<id>`): a start knows which to look at. It holds the start
 * of the machine under which the files were last known to be at their position; a mark that says something else, an
 * earlier start or what a primary writes, means that this has to be found out.
 */
export class ActiveMarks {
  readonly #directory: string;
  readonly #boot: string;
  readonly #marked = new Set<string>();

  constructor(dataDirectory: string, boot: string) {
    this.#directory = join(dataDirectory, 'active');
    this.#boot = boot;
    mkdirSync(this.#directory, {recursive: true, mode: 0o700});
  }

  list(): string[] {
    return readdirSync(this.#directory);
  }

  /** Nothing was lost of what a daemon wrote to the files. */
  isTrusted(id: string): boolean {
    return readIfThere(join(this.#directory, id)) === this.#boot;
  }

  /** The database is in use. A mark that is there already says what it said. */
  set(id: string): void {
    if (this.#marked.has(id)) return;
    if (readIfThere(join(this.#directory, id)) === undefined) this.trust(id);
    this.#marked.add(id);
  }

  /** The files are known to be at their position. */
  trust(id: string): void {
    writeFileSync(join(this.#directory, id), this.#boot);
  }

  clear(id: string): void {
    rmSync(join(this.#directory, id), {force: true});
    this.#marked.delete(id);
  }
}
