import {join} from 'node:path';
import {Seals} from '../engine/capture/seal.ts';
import {isDatabaseId} from '../engine/catalog.ts';
import {bootId, dataPaths} from '../engine/data-directory.ts';
import type {Disk} from '../lib/disk.ts';
import {Crc64Factory} from '../ltx/crc64.ts';
import {LockBytes} from '../sqlite/lock-bytes.ts';
import {type CatalogContent, type CatalogedDatabase, checkCatalog} from './catalog-check.ts';
import {checkDatabase} from './database-check.ts';
import {type Finding, guarded, note, tried, violation} from './finding.ts';
import {InputFolder} from './input-folder.ts';
import type {LeftBehind} from './left-behind.ts';

export interface VerifyOptions {
  /** Where SQLite's lock bytes are, if they were moved. */
  readonly pendingByte?: number;
}

/** What lies in a data directory beside the folders of `dataPaths`. */
const STATE_NAMES = ['hidden-folders', 'active', 'identity', 'lock', 'keeper.pid', 'daemon.pid', 'mounted'];

/**
 * Checks everything that a node keeps, every byte of it, and yields all that is wrong or unusual, not the first only. Reads
 * only; nobody else may have the directory in use. No damage makes it throw, and its memory does not grow with the size of
 * a database beyond 8 bytes a page. It does not look into the content of tables and indexes: pages are bytes.
 */
export async function* verifyDataDirectory(
  disk: Disk,
  directory: string,
  options: VerifyOptions = {},
): AsyncGenerator<Finding> {
  const crc64 = await Crc64Factory.open();
  const folder = new InputFolder(disk, directory);
  const lockBytes = new LockBytes(options.pendingByte);
  const lockPgno = (pageSize: number) => lockBytes.lockPgno(pageSize);
  yield* checkTop(folder);
  const catalog = yield* checkCatalog(folder, 'catalog');
  yield* checkFolders(folder, catalog);
  const leftBehind = yield* readActive(folder, catalog);
  for (const [id, database] of catalog.databases) {
    const {name, summary} = database;
    const left = yield* tried(`databases/${id}`, () => leftBehind(id, database));
    yield* guarded(`databases/${id}`, () =>
      checkDatabase({
        folder,
        id,
        name,
        summary,
        left: left ?? 'touched',
        crc64,
        lockPgno,
        pendingByte: options.pendingByte,
      }),
    );
  }
}

function* checkTop(folder: InputFolder): Generator<Finding> {
  const known = new Set([...STATE_NAMES, ...Object.values(dataPaths('.'))]);
  for (const name of folder.list('.') ?? []) {
    if (!known.has(name)) yield note('FILE_UNKNOWN', name, 'Nothing is known of this file');
  }
  yield* guarded('files', function* () {
    if (folder.list('files') === undefined)
      yield violation('FILE_MISSING', 'files', 'The folder of the databases themselves is missing');
  });
  yield* guarded('identity', function* () {
    const bytes = folder.readAll('identity');
    if (bytes === undefined || isIdentity(bytes.toString('utf8'))) return;
    yield violation('STATE_CORRUPT', 'identity', 'Identity of the node is damaged: it does not start');
  });
}

function isIdentity(text: string): boolean {
  try {
    const {nodeId, term} = JSON.parse(text) as {nodeId?: unknown; term?: unknown};
    return typeof nodeId === 'string' && typeof term === 'string' && /^\d{1,20}$/.test(term);
  } catch {
    return false;
  }
}

/** Folders of databases that the catalog does not know. */
function* checkFolders(folder: InputFolder, {databases, dropped}: CatalogContent): Generator<Finding> {
  const names = yield* tried('databases', () => folder.list('databases'));
  for (const name of names ?? []) {
    if (databases.has(name)) continue;
    const what = dropped.has(name)
      ? 'Folder of a database that was dropped'
      : 'Nothing is known of this file';
    yield note(
      'FILE_UNKNOWN',
      `databases/${name}`,
      isDatabaseId(name) && !dropped.has(name) ? 'Database is not in the catalog' : what,
    );
  }
}

/** Finds out which databases were in use when the daemon ended, and returns who says it of each. */
function* readActive(
  folder: InputFolder,
  {databases}: CatalogContent,
): Generator<Finding, (id: string, database: CatalogedDatabase) => LeftBehind> {
  const active = yield* tried('active', () => folder.list('active'));
  for (const id of active ?? []) {
    if (!databases.has(id))
      yield note('FILE_UNKNOWN', `active/${id}`, 'Marks a database that is not in the catalog');
  }
  const boot = bootId();
  const seals = active === undefined ? undefined : new Seals(folder.directory, {boot, run: ''});
  return (id, {name}) => {
    const isActive = active?.includes(id) === true;
    if (isActive && seals?.bootOf(id) !== boot) return 'rebooted';
    if (folder.list(`databases/${id}`)?.includes('position') === true) return 'following';
    if (isActive) return 'daemon-died';
    return seals?.leftBehind(id, join(folder.directory, 'files', name)) === 'closed' ? 'closed' : 'touched';
  };
}
