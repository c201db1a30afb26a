import {isUtf8} from 'node:buffer';
import {constants} from 'node:os';

const {EILSEQ, EINVAL, ENAMETOOLONG} = constants.errno;

/** Longest name of a file or folder in bytes, as on the file systems below. */
export const NAME_SIZE_MAX = 255;
/** Longest path of a database relative to the mount, in bytes. */
export const DATABASE_NAME_SIZE_MAX = 1024;

/** What a file is to SQLite, from its name alone: `NAME-journal`, `NAME-wal` and `NAME-shm` belong to the database NAME. */
export type FileRole = 'main' | 'journal' | 'wal' | 'shm' | 'super-journal';

const SUFFIXES = [
  ['-journal', 'journal'],
  ['-wal', 'wal'],
  ['-shm', 'shm'],
] as const;

/** The role of `name`, and the name of the database that it belongs to. */
export function fileRole(name: string): {readonly role: FileRole; readonly base: string} {
  for (const [suffix, role] of SUFFIXES) {
    if (name.length > suffix.length && name.endsWith(suffix))
      return {role, base: name.slice(0, -suffix.length)};
  }
  // sqlite3PagerCommitPhaseOne's multi-file commits: NAME-mj and nine hexadecimal digits.
  const superJournal = /^(.+)-mj[0-9A-F]{6}9[0-9A-F]{2}$/i.exec(name);
  return superJournal === null
    ? {role: 'main', base: name}
    : {role: 'super-journal', base: superJournal[1] ?? name};
}

/** Checks one path component as it came from the kernel. Returns 0 or the errno that says what is wrong with it. */
export function checkName(bytes: Buffer): number {
  if (bytes.length > NAME_SIZE_MAX) return ENAMETOOLONG;
  if (bytes.length === 0 || bytes.includes(0) || bytes.includes(0x2f)) return EINVAL;
  if (bytes.length <= 2 && bytes.every(byte => byte === 0x2e)) return EINVAL; // "." and ".."
  return isUtf8(bytes) ? 0 : EILSEQ;
}

/** Whether `name`, which came from a peer or from disk, is a path that stays inside the mount. */
export function isDatabaseName(name: string): boolean {
  if (Buffer.byteLength(name) > DATABASE_NAME_SIZE_MAX) return false;
  const parts = name.split('/');
  return (
    parts.every(part => checkName(Buffer.from(part, 'utf8')) === 0) &&
    fileRole(parts.at(-1) ?? '').role === 'main'
  );
}
