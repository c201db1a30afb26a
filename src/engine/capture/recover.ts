import {closeSync, fstatSync, openSync, readSync} from 'node:fs';
import type {LogEntry} from '../../log/log-entry.ts';
import {JOURNAL_HEADER_SIZE, looksHot} from '../../sqlite/journal.ts';
import type {CapturedDatabase} from './captured-database.ts';
import {journalPageSize} from './plans.ts';

/** Larger records are not read at a start: all pages are looked at instead, in the background. */
const RECORD_LOOKED_AT_SIZE_MAX = 64 * 1024 * 1024;

/** How the database was left: by whom it may have been changed without our seeing it. */
export type LeftBehind =
  /** Closed by us and untouched since. */
  | 'closed'
  /** The daemon died; the machine did not. */
  | 'daemon-died'
  /** The machine lost its memory, or somebody wrote to the files while no daemon ran. */
  | 'unknown';

/** Reads the start of the rollback journal, or undefined when there is none or it is empty. */
export function readJournalHeader(path: string): Uint8Array | undefined {
  let fd = -1;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
  try {
    if (fstatSync(fd).size === 0) return undefined;
    const header = new Uint8Array(JOURNAL_HEADER_SIZE);
    return header.subarray(0, readSync(fd, header, 0, header.length, 0));
  } finally {
    closeSync(fd);
  }
}

/** Takes note of a rollback journal that is there already. */
export function noteJournal(database: CapturedDatabase): void {
  const journal = readJournalHeader(`${database.files.path}-journal`);
  database.isJournalActive = journal !== undefined && looksHot(journal);
  if (journal !== undefined) database.journalPageSize = journalPageSize(journal);
}

/** Brings log and files together after whatever happened: what the files have and the log does not becomes a transaction. */
export function recoverDatabase(database: CapturedDatabase, left: LeftBehind): void {
  const {files, tracker, store} = database;
  noteJournal(database);
  if (left === 'unknown') {
    recoverUnknown(database);
    return;
  }
  const {walSize} = files;
  const last = store?.log.last();
  tracker.load(walSize, 0);
  const {header} = tracker;
  const isLogged =
    header !== undefined &&
    last !== undefined &&
    header.salt1 === last.walSalt1 &&
    header.salt2 === last.walSalt2;
  if (store?.isRebuilding === true) {
    while (isLogged && tracker.committedEnd < last.walOffset + last.walSize && tracker.next() !== undefined);
    if (database.isJournalActive || database.isDirty) database.dirtyFile.noteUnknown();
    else database.captureAll();
  } else if (isLogged) {
    if (!recoverLogged(database, last, left)) return;
  } else if (left === 'daemon-died' && last !== undefined && last.walSize > 0) {
    // As there, but the WAL was begun anew, or is gone.
    if (last.size > RECORD_LOOKED_AT_SIZE_MAX) database.dirtyFile.noteUnknown();
    else database.undone.add(database.pagesOfLastRecord());
  }
  database.noteWal(); // A file that was written without a journal is captured when it is flushed or quiet.
}

/** The WAL is the one that the log's last record names. Returns whether what it says is there; if not, all is compared. */
function recoverLogged(database: CapturedDatabase, last: LogEntry, left: LeftBehind): boolean {
  const {files, tracker} = database;
  const end = last.walOffset + last.walSize;
  // The last transaction of a writer that died may have been overwritten in part, or by another one.
  const knownEnd = left === 'daemon-died' ? last.walOffset : end;
  tracker.load(files.walSize, knownEnd);
  if (tracker.committedEnd < knownEnd) {
    recoverUnknown(database);
    return false;
  }
  if (left === 'daemon-died') database.recaptureWal(end, database.pagesOfLastRecord());
  return true;
}

/** Every page has to be looked at, but not while a transaction is open: its journal brings the old pages back, or goes. */
function recoverUnknown(database: CapturedDatabase): void {
  const {files, tracker, store} = database;
  database.check.begin();
  tracker.load(files.walSize, 0);
  while (tracker.next() !== undefined); // Checks every frame: the disk may have lost some. What is there is compared as a whole.
  if (database.isJournalActive) database.dirtyFile.noteUnknown();
  else if (store !== undefined || tracker.committedCount > 0) database.captureAll();
  else database.dirtyFile.noteUnknown(); // Perhaps somebody is just copying it here.
}
