import {statfsSync} from 'node:fs';
import type {CapturedDatabase} from './captured-database.ts';

/** Free space is looked at again after this many more pages. */
const PAGES_PER_LOOK = 32;
/** Space for what else is written meanwhile: the record's head and index, lists of dirty pages, other databases. */
const MARGIN_BYTES = 256 * 1024;

/**
 * Whether the disk has room for the record of a transaction with a rollback journal that is about to write `data` to the
 * database file. The record is written when the journal is about to go, and an error there is an I/O error to SQLite; an
 * error here is a full disk, and it rolls back. A rollback must always pass: it writes to pages that the transaction
 * has written, or what is there already.
 */
export function hasSpaceForRecord(database: CapturedDatabase, offset: number, data: Buffer): boolean {
  const pageSize = database.store?.checksums.pageSize || database.journalPageSize;
  const pagesWritten = database.dirtyFile.pages?.count ?? 0;
  if (pageSize === 0 || pagesWritten % PAGES_PER_LOOK !== 0) return true;
  if (database.dirtyFile.has(Math.floor(offset / pageSize) + 1)) return true;
  const {files} = database;
  const {bavail, bsize} = statfsSync(files.path);
  // What is in the journal is about to be written; until the next look as much again may be, to the file and the record.
  const recordBytes = Math.max(database.journalEnd, pagesWritten * pageSize);
  if (bavail * bsize >= MARGIN_BYTES + recordBytes + 2 * PAGES_PER_LOOK * pageSize) return true;
  const there = Buffer.alloc(data.length);
  return files.readMain(there, offset) === there.length && there.equals(data);
}
