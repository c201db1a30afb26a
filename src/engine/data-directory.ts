import {lstatSync, mkdirSync, readdirSync, readFileSync, unlinkSync} from 'node:fs';
import {join} from 'node:path';
import {Disk} from '../lib/disk.ts';

/** Folders and files of a node's data directory. */
export interface DataPaths {
  /** Mirrors the mount: ordinary files, ordinary SQLite databases. */
  readonly files: string;
  /** Files that were unlinked while open, by inode number. */
  readonly hidden: string;
  /** `<id>/`: each database's log, page checksums and small state. */
  readonly databases: string;
  /** Names of the databases. */
  readonly catalog: string;
  /** Transfers that are under way. */
  readonly incoming: string;
  /** What was discarded, and never silently. */
  readonly lost: string;
}

export function dataPaths(directory: string): DataPaths {
  return {
    files: join(directory, 'files'),
    hidden: join(directory, 'hidden'),
    databases: join(directory, 'databases'),
    catalog: join(directory, 'catalog'),
    incoming: join(directory, 'incoming'),
    lost: join(directory, 'lost'),
  };
}

export function makeDataDirectory(directory: string): DataPaths {
  const paths = dataPaths(directory);
  mkdirSync(directory, {recursive: true, mode: 0o700});
  const isNew = lstatSync(paths.files, {throwIfNoEntry: false}) === undefined;
  mkdirSync(paths.files, {recursive: true, mode: isNew ? 0o777 : 0o700});
  for (const path of [paths.hidden, paths.databases, paths.incoming, paths.lost])
    mkdirSync(path, {recursive: true, mode: 0o700});
  return paths;
}

/** A new mount: nobody can have the unlinked files open any more. */
export function removeHidden(paths: DataPaths): void {
  for (const name of readdirSync(paths.hidden)) unlinkSync(join(paths.hidden, name));
}

const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** Whether the machine was started since the last daemon ran on this directory; remembers this start. */
export function noteBoot(disk: Disk, directory: string): boolean {
  const path = join(directory, 'boot-id');
  const now = readFileSync(BOOT_ID, 'utf8');
  const before = readIfThere(path);
  if (before === now) return false;
  disk.writeFileAtomic('boot:note', path, Buffer.from(now));
  return before !== undefined;
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
