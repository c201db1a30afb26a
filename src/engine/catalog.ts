import {closeSync, constants, ftruncateSync, openSync, readFileSync} from 'node:fs';
import type {Disk} from '../lib/disk.ts';
import {formatPosition, type Position, parsePosition} from '../ltx/position.ts';
import {isDatabaseName} from './mount/names.ts';

/** One line of the catalog: a database is there under this name, or is gone. */
interface CatalogLine {
  readonly id: string;
  readonly name?: string;
  /** The name before, under which files may still be: the rename is under way. */
  readonly from?: string;
  readonly summary?: StoredSummary;
}

/** How a database stood when it was closed: a start need not open it to know. */
export interface DatabaseSummary {
  readonly position: Position;
  /** Term of the last transaction. */
  readonly term: bigint;
  readonly pageSize: number;
  /** Size in pages. */
  readonly commit: number;
}

interface StoredSummary {
  readonly position: string;
  readonly term: string;
  readonly pageSize: number;
  readonly commit: number;
}

const TOMBSTONES_MAX = 10_000;
const COMPACT_LINES_MIN = 1000;

export class CatalogError extends Error {
  override readonly name = 'CatalogError';
  readonly code = 'CATALOG_CORRUPT';
}

/**
 * Which databases a node has: their names by ID, and which were dropped. An append-only file of JSON lines, a torn
 * last one is ignored; rewritten when it has grown. One thread owns it.
 */
export class Catalog {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #names = new Map<string, string>();
  readonly #ids = new Map<string, string>();
  readonly #dropped = new Set<string>();
  readonly #summaries = new Map<string, StoredSummary>();
  readonly #formerNames = new Map<string, string>();
  #fd: number;
  #size = 0;

  private constructor(disk: Disk, path: string) {
    this.#disk = disk;
    this.#path = path;
    this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  }

  static open(disk: Disk, path: string): Catalog {
    const catalog = new Catalog(disk, path);
    const text = readFileSync(path, 'utf8');
    const lines = text.split('\n');
    lines.pop(); // Behind the last newline: nothing, or a torn line.
    for (const [index, line] of lines.entries()) catalog.#apply(parseLine(line, index));
    catalog.#size = Buffer.byteLength(lines.length === 0 ? '' : `${lines.join('\n')}\n`);
    ftruncateSync(catalog.#fd, catalog.#size);
    const liveCount = catalog.#names.size + catalog.#dropped.size;
    if (lines.length > COMPACT_LINES_MIN && lines.length > 2 * liveCount) catalog.#rewrite();
    return catalog;
  }

  get count(): number {
    return this.#names.size;
  }

  get fd(): number {
    return this.#fd;
  }

  idOf(name: string): string | undefined {
    return this.#ids.get(name);
  }

  nameOf(id: string): string | undefined {
    return this.#names.get(id);
  }

  /** IDs and names of all databases. */
  entries(): IterableIterator<[id: string, name: string]> {
    return this.#names.entries();
  }

  get dropped(): ReadonlySet<string> {
    return this.#dropped;
  }

  /** Gives the database `id`, new or known, the name `name`. */
  set(id: string, name: string): void {
    this.#append({id, name});
  }

  /**
   * Gives the database the name `name` and remembers, durably, that its files are still to be moved there; `set` with the
   * same name says that they are.
   */
  beginRename(id: string, name: string): void {
    this.#append({id, name, from: this.#names.get(id)});
    this.sync();
  }

  /** Names that databases had before a rename that did not come to its end, by ID. */
  get formerNames(): ReadonlyMap<string, string> {
    return this.#formerNames;
  }

  /** Makes what was set durable. */
  sync(): void {
    this.#disk.sync('catalog:sync', this.#fd);
  }

  /** Keeps how the database stood when it was closed. */
  summarize(id: string, {position, term, pageSize, commit}: DatabaseSummary): void {
    const name = this.#names.get(id);
    if (name === undefined) return;
    this.#append({
      id,
      name,
      from: this.#formerNames.get(id),
      summary: {position: formatPosition(position), term: String(term), pageSize, commit},
    });
  }

  /** How the database stood when it was last closed; it may have gone on since, unless it is not in use. */
  summaryOf(id: string): DatabaseSummary | undefined {
    const stored = this.#summaries.get(id);
    return stored === undefined
      ? undefined
      : {...stored, position: parsePosition(stored.position), term: BigInt(stored.term)};
  }

  drop(id: string): void {
    this.#append({id});
  }

  close(): void {
    closeSync(this.#fd);
  }

  #append(line: CatalogLine): void {
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
    this.#disk.write('catalog:append', this.#fd, bytes, this.#size);
    this.#size += bytes.length;
    this.#apply(line);
  }

  #apply({id, name, from, summary}: CatalogLine): void {
    const old = this.#names.get(id);
    if (old !== undefined && this.#ids.get(old) === id) this.#ids.delete(old);
    this.#formerNames.delete(id);
    if (name === undefined) {
      this.#names.delete(id);
      this.#summaries.delete(id);
      this.#dropped.add(id);
      const [first] = this.#dropped;
      if (this.#dropped.size > TOMBSTONES_MAX && first !== undefined) this.#dropped.delete(first);
      return;
    }
    this.#names.set(id, name);
    this.#ids.set(name, id);
    this.#dropped.delete(id);
    if (from !== undefined) this.#formerNames.set(id, from);
    if (summary !== undefined) this.#summaries.set(id, summary);
  }

  #rewrite(): void {
    const lines = [
      ...[...this.#dropped].map(id => ({id})),
      ...[...this.#names].map(([id, name]) => ({
        id,
        name,
        from: this.#formerNames.get(id),
        summary: this.#summaries.get(id),
      })),
    ];
    const bytes = Buffer.from(lines.map(line => `${JSON.stringify(line)}\n`).join(''));
    this.#disk.writeFileAtomic('catalog:rewrite', this.#path, bytes);
    closeSync(this.#fd);
    this.#fd = openSync(this.#path, constants.O_RDWR, 0o600);
    this.#size = bytes.length;
  }
}

function parseLine(line: string, index: number): CatalogLine {
  let parsed: Partial<CatalogLine> = {};
  try {
    parsed = JSON.parse(line) as Partial<CatalogLine>;
  } catch (cause) {
    throw new CatalogError(`Cannot read catalog: line ${index + 1} is no JSON`, {cause});
  }
  const {id, name, from, summary} = parsed;
  if (
    typeof id !== 'string' ||
    !isDatabaseId(id) ||
    ![name, from].every(value => value === undefined || (typeof value === 'string' && isDatabaseName(value)))
  ) {
    throw new CatalogError(`Cannot read catalog: line ${index + 1} names no database`);
  }
  return name === undefined ? {id} : {id, name, from, summary};
}

/** 32 lower-case hexadecimal digits. */
export function isDatabaseId(id: string): boolean {
  return /^[0-9a-f]{32}$/.test(id);
}
