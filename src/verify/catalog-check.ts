import {type DatabaseSummary, isDatabaseId} from '../engine/catalog.ts';
import {isDatabaseName} from '../engine/mount/names.ts';
import {parsePosition} from '../ltx/position.ts';
import {type Finding, guarded, note, violation} from './finding.ts';
import type {InputFolder} from './input-folder.ts';

export interface CatalogedDatabase {
  readonly name: string;
  readonly summary: DatabaseSummary | undefined;
}

export interface CatalogContent {
  /** By ID. */
  readonly databases: ReadonlyMap<string, CatalogedDatabase>;
  readonly dropped: ReadonlySet<string>;
}

interface CatalogLine extends Partial<CatalogedDatabase> {
  readonly id: string;
}

/** Checks the catalog line by line; what does not parse is left out of the result. */
export function* checkCatalog(folder: InputFolder, path: string): Generator<Finding, CatalogContent> {
  const databases = new Map<string, CatalogedDatabase>();
  const dropped = new Set<string>();
  yield* guarded(path, function* () {
    const bytes = folder.readAll(path);
    if (bytes === undefined) {
      yield violation('FILE_MISSING', path, 'Catalog is missing: nothing says which databases there are');
      return;
    }
    const lines = bytes.toString('utf8').split('\n');
    if (lines.pop() !== '') yield note('CATALOG_TORN', path, 'Last line is not whole, and is ignored');
    for (const [index, text] of lines.entries()) {
      const line = parseLine(text);
      if (line === undefined) {
        yield violation('CATALOG_CORRUPT', path, `Line ${index + 1} is damaged`, {line: index + 1});
        continue;
      }
      const {id, name, summary} = line;
      if (name === undefined) {
        databases.delete(id);
        dropped.add(id);
      } else databases.set(id, {name, summary: summary ?? databases.get(id)?.summary});
    }
  });
  yield* checkNames(databases, path);
  return {databases, dropped};
}

function* checkNames(databases: ReadonlyMap<string, CatalogedDatabase>, path: string): Generator<Finding> {
  const ids = new Map<string, string>();
  for (const [id, {name}] of databases) {
    const other = ids.get(name);
    if (other !== undefined)
      yield violation('CATALOG_DUPLICATE_NAME', path, `Two databases have the name "${name}"`, {
        name,
        ids: [other, id],
      });
    ids.set(name, id);
  }
}

/** Reads a line of the catalog as the daemon does, and stricter in what it says of the database. */
function parseLine(text: string): CatalogLine | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(parsed)) return undefined;
  const {id, name, summary} = parsed;
  if (typeof id !== 'string' || !isDatabaseId(id)) return undefined;
  if (name === undefined) return {id};
  if (typeof name !== 'string' || !isDatabaseName(name)) return undefined;
  if (summary === undefined) return {id, name};
  const read = readSummary(summary);
  return read === undefined ? undefined : {id, name, summary: read};
}

function readSummary(stored: unknown): DatabaseSummary | undefined {
  if (!isRecord(stored)) return undefined;
  const {position, term, pageSize, commit} = stored;
  if (typeof position !== 'string' || !/^[0-9a-f]{16}\/[89a-f][0-9a-f]{15}$/.test(position)) return undefined;
  if (typeof term !== 'string' || !/^\d{1,20}$/.test(term)) return undefined;
  if (typeof pageSize !== 'number' || typeof commit !== 'number') return undefined;
  return {position: parsePosition(position), term: BigInt(term), pageSize, commit};
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
