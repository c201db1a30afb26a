import {lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, unlinkSync} from 'node:fs';
import {join} from 'node:path';
import {Disk} from '../lib/disk.ts';
import {type Catalog, isDatabaseId} from './catalog.ts';

/** Folders and files of a node's data directory. */
export interface DataPaths {
  /** Mirrors the mount: ordinary files, ordinary SQLite databases. */
  readonly files: string;
  /** Files that were unlinked while open, by inode number. */
  readonly hidden: string;
  /** Folders that were removed while somebody stood in them, by inode number. */
  readonly hiddenFolders: string;
  /** `<id>/`: each database's log, page checksums and small state. */
  readonly databases: string;
  /** Names of the databases. */
  readonly catalog: string;
  /** Transfers that are under way. */
  readonly incoming: string;
  /** What was discarded, and never silently. */
  readonly lost: string;
}

export class DataDirectoryError extends Error {
  override readonly name = 'DataDirectoryError';
  readonly code: 'DATA_INODE_TOO_LARGE';
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(code: DataDirectoryError['code'], message: string, detail: Readonly<Record<string, unknown>>) {
    super(message);
    this.code = code;
    this.detail = detail;
  }
}

export function dataPaths(directory: string): DataPaths {
  return {
    files: join(directory, 'files'),
    hidden: join(directory, 'hidden'),
    hiddenFolders: join(directory, 'hidden-folders'),
    databases: join(directory, 'databases'),
    catalog: join(directory, 'catalog'),
    incoming: join(directory, 'incoming'),
    lost: join(directory, 'lost'),
  };
}

/** Makes what is missing. Throws `DATA_INODE_TOO_LARGE` on a file system whose inode numbers cannot be the mount's. */
export function makeDataDirectory(directory: string): DataPaths {
  const paths = dataPaths(directory);
  mkdirSync(directory, {recursive: true, mode: 0o700});
  const isNew = lstatSync(paths.files, {throwIfNoEntry: false}) === undefined;
  mkdirSync(paths.files, {recursive: true, mode: isNew ? 0o777 : 0o700});
  for (const path of [paths.hidden, paths.hiddenFolders, paths.databases, paths.incoming, paths.lost])
    mkdirSync(path, {recursive: true, mode: 0o700});
  checkInodeNumbers(paths.files);
  return paths;
}

/** Inode numbers are the mount's node IDs; those above are the virtual files' (`BACKING_NODEID_MAX`). */
const INO_MAX = 2n ** 51n - 1n;

function checkInodeNumbers(path: string): void {
  const {ino} = lstatSync(path, {bigint: true});
  if (ino <= INO_MAX) return;
  throw new DataDirectoryError(
    'DATA_INODE_TOO_LARGE',
    `Cannot use data directory "${path}": its file system has inode numbers of more than 51 bits (overlay with xino, some network file systems); use a local one`,
    {path, ino},
  );
}

/** A folder of `<data>/databases` that no database in the catalog has, and where it was moved. */
export interface Orphan {
  readonly id: string;
  readonly kept: string;
}

/** Moves folders without a database, which a daemon left that died at the wrong moment, to `<data>/lost`. Its caller logs them. */
export function setAsideOrphans(paths: DataPaths, catalog: Catalog, nowMs: number): Orphan[] {
  const orphans = readdirSync(paths.databases).filter(
    id => isDatabaseId(id) && catalog.nameOf(id) === undefined,
  );
  if (orphans.length > 0) mkdirSync(paths.lost, {recursive: true, mode: 0o700});
  return orphans.map(id => {
    const kept = join(paths.lost, `${id}-${nowMs}`);
    renameSync(join(paths.databases, id), kept);
    return {id, kept};
  });
}

/** A new mount: nobody can have the unlinked files open any more. */
export function removeHidden(paths: DataPaths): void {
  for (const name of readdirSync(paths.hidden)) unlinkSync(join(paths.hidden, name));
}

/** Names this start of the machine: what an earlier one did not flush may be gone. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}

/** A disk that kills the process at the `count`-th call named `name` (`name:count`): for tests of crashes. */
export function diskThatCrashesAt(crashAt: string | undefined): Disk {
  if (crashAt === undefined) return new Disk();
  const [, name = crashAt, countText = '1'] = /^(.*?)(?:#(\d+))?$/.exec(crashAt) ?? [];
  let left = Number(countText);
  return new Disk({
    onCall: called => {
      if (called !== name || --left > 0) return;
      process.kill(process.pid, 'SIGKILL');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000);
    },
  });
}
