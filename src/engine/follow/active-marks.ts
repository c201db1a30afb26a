import {mkdirSync, readdirSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

/** Marks the databases that are in use by a file each (`<data>/active/<id>`): a start knows which to look at. */
export class ActiveMarks {
  readonly #directory: string;
  readonly #marked = new Set<string>();

  constructor(dataDirectory: string) {
    this.#directory = join(dataDirectory, 'active');
    mkdirSync(this.#directory, {recursive: true, mode: 0o700});
  }

  list(): string[] {
    return readdirSync(this.#directory);
  }

  set(id: string): void {
    if (this.#marked.has(id)) return;
    writeFileSync(join(this.#directory, id), '');
    this.#marked.add(id);
  }

  clear(id: string): void {
    rmSync(join(this.#directory, id), {force: true});
    this.#marked.delete(id);
  }
}
