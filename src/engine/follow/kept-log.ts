import {constants, cpSync, existsSync, mkdirSync, readdirSync, rmSync} from 'node:fs';
import {dirname, join} from 'node:path';
import type {Disk} from '../../lib/disk.ts';
import {formatPosition} from '../../ltx/position.ts';
import type {DatabaseStore} from '../database-store.ts';

export interface KeptLog {
  readonly path: string;
  /** False: it was there already. */
  readonly isNew: boolean;
}

/**
 * Copies a database's log into the folder `lost`, durably, before it is given up for a snapshot. The name says where the log
 * ends, and logs that end alike are alike: one that is there already, from an attempt at which no snapshot came, is not copied
 * again. `temporaryPath` is on the same file system; what a death leaves there is no copy.
 */
export function keepLog(
  disk: Disk,
  {id, log}: Pick<DatabaseStore, 'id' | 'log'>,
  logDirectory: string,
  lost: string,
  temporaryPath: string,
): KeptLog {
  const path = join(lost, `${id}-${formatPosition(log.position).replace('/', '-')}-${log.term}`);
  const isNew = !existsSync(path);
  if (isNew) {
    try {
      cpSync(logDirectory, temporaryPath, {recursive: true});
      for (const name of readdirSync(temporaryPath)) syncFile(disk, join(temporaryPath, name));
      disk.syncDirectory('lost-log:sync-directory', temporaryPath);
      if (mkdirSync(lost, {recursive: true, mode: 0o700}) !== undefined)
        disk.syncDirectory('lost-log:sync-parent', dirname(lost));
      disk.rename('lost-log:rename', temporaryPath, path);
    } finally {
      rmSync(temporaryPath, {recursive: true, force: true});
    }
  }
  disk.syncDirectory('lost-log:sync-name', lost);
  return {path, isNew};
}

function syncFile(disk: Disk, path: string): void {
  const fd = disk.open('lost-log:open', path, constants.O_RDONLY);
  try {
    disk.sync('lost-log:sync', fd);
  } finally {
    disk.close(fd);
  }
}
