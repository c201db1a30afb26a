import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import Database from 'better-sqlite3';
import {SqliteFormatError} from '../../src/sqlite/error.ts';

export const PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] as const;

/** Runs `action` with a new folder that is gone afterwards. */
export function withFolder<T>(action: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'ferrite-sqlite-'));
  try {
    return action(folder);
  } finally {
    rmSync(folder, {recursive: true, force: true});
  }
}

/** Runs `action` with an open database, which is closed afterwards. */
export function withDatabase<T>(path: string, action: (database: Database.Database) => T): T {
  const database = new Database(path);
  try {
    return action(database);
  } finally {
    database.close();
  }
}

/** Code of the `SqliteFormatError` that `action` throws; other errors go through. */
export function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof SqliteFormatError) return error.code;
    throw error;
  }
  return 'none';
}

/** `bytes` with bit `bit` the other way round. */
export function flipBit(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[bit >> 3] ^= 1 << (bit & 7);
  return copy;
}
