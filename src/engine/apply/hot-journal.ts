import {closeSync, existsSync} from 'node:fs';
import {isAbsolute} from 'node:path';
import {looksHot, planRollback, readSuperJournalName, rolledBackSize} from '../../sqlite/journal.ts';
import type {LockBytes} from '../../sqlite/lock-bytes.ts';
import type {FollowerFiles} from './follower-files.ts';

/** Says whether the database has a journal that SQLite would go to roll back, were no writer alive. */
export function hasHotJournal(files: FollowerFiles): boolean {
  if (files.companionSize('-journal') <= 0) return false;
  const fd = files.openCompanion('follower-journal:peek', '-journal');
  try {
    const first = new Uint8Array(1);
    return files.disk.read(fd, first, 0) === 1 && looksHot(first);
  } finally {
    closeSync(fd);
  }
}

/**
 * Rolls the database back as SQLite does with a hot journal, and removes the journal. The caller holds the
 * EXCLUSIVE lock. Safe to be cut off at any moment: the journal goes last, and doing it twice is doing it
 * once.
 */
export function rollBackJournal(files: FollowerFiles, lockBytes: LockBytes): void {
  const fd = files.openCompanion('follower-rollback:open', '-journal');
  try {
    playBack(files, fd, lockBytes);
  } finally {
    closeSync(fd);
  }
  files.syncDatabase('follower-rollback:sync');
  files.unlinkCompanion('follower-rollback:unlink', '-journal');
  files.syncNames('follower-rollback:sync-directory');
  // Whoever died in the middle may have written backing bytes that the kernel's cache never saw.
  files.cache.invalidate('database');
}

function playBack(files: FollowerFiles, fd: number, lockBytes: LockBytes): void {
  const fileSize = files.disk.size(fd);
  let buffer = new Uint8Array(4096);
  const read = (position: number, length: number): Uint8Array => {
    if (buffer.length < length) buffer = new Uint8Array(length);
    const target = buffer.subarray(0, length);
    return target.subarray(0, files.disk.read(fd, target, position));
  };
  const superJournal = readSuperJournalName(read, fileSize);
  if (superJournal !== undefined && isAbsolute(superJournal) && !existsSync(superJournal)) return;
  const pageSize = databasePageSize(files);
  for (const step of planRollback({
    read,
    fileSize,
    lockBytes,
    ...(pageSize && {databasePageSize: pageSize}),
  })) {
    if (step.kind === 'page') {
      files.writeDatabase('follower-rollback:write', step.page, (step.pgno - 1) * step.page.length);
    } else {
      const size = rolledBackSize(files.databaseSize, step.pageCount, step.pageSize);
      files.truncateDatabase('follower-rollback:truncate', size);
    }
  }
}

/**
 * Page size by the database's header, in bytes; 0 when a torn header doesn't say. Only very old journals need
 * it.
 */
function databasePageSize(files: FollowerFiles): number {
  const header = new Uint8Array(20);
  if (files.readDatabase(header, 0) < header.length) return 0;
  const packed = (header[16] << 8) | header[17];
  return packed === 1 ? 65_536 : packed;
}
