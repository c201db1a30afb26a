import {readFileSync} from 'node:fs';

const LOCKS = '/proc/locks';

/** The kernel's table of file locks, or undefined where there is none. Reading it touches no file system but /proc. */
export function readLocks(): string | undefined {
  try {
    return readFileSync(LOCKS, 'latin1');
  } catch {
    return undefined; // Not every container has it.
  }
}

/**
 * Whether somebody holds a write lock on a file with the inode number `ino`, of whatever file system: `locks` is the
 * text of /proc/locks, `1: POSIX  ADVISORY  WRITE 4711 00:2d:786434 1073741825 1073741825`.
 */
export function hasWriteLock(locks: string, ino: number): boolean {
  return locks.split('\n').some(line => {
    const fields = line.trim().split(/\s+/);
    const at = fields.indexOf('WRITE');
    return at >= 0 && fields[at + 2]?.endsWith(`:${ino}`) === true;
  });
}
