import {existsSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import Database from 'better-sqlite3';
import fc from 'fast-check';
import {expect, test} from 'vitest';
import {
  decodeJournalHeader,
  isZeroedJournalHeader,
  JOURNAL_RECORDS_UNKNOWN,
  journalChecksum,
  looksHot,
  planRollback,
  type ReadJournal,
  type RollbackOptions,
  readSuperJournalName,
  rolledBackSize,
} from '../../src/sqlite/journal.ts';
import {LockBytes} from '../../src/sqlite/lock-bytes.ts';
import {codeOf, flipBit, PAGE_SIZES, withDatabase, withFolder} from './support.ts';

/** A database as a crash leaves it, and what it was before the transaction. */
interface Crash {
  readonly before: Uint8Array;
  readonly database: Uint8Array;
  readonly journal: Uint8Array;
}

interface CrashOptions {
  readonly pageSize: number;
  readonly journalMode?: string;
  readonly synchronous?: string;
  readonly work?: (database: Database.Database) => void;
}

/** Takes the files of a transaction in the middle, after its page cache has spilled into the database. */
function makeCrash(options: CrashOptions): Crash {
  const {pageSize, journalMode = 'DELETE', synchronous = 'FULL', work = updateAll} = options;
  return withFolder(folder => {
    const path = join(folder, 'a.db');
    return withDatabase(path, database => {
      database.pragma(`page_size = ${pageSize}`);
      database.pragma(`journal_mode = ${journalMode}`);
      database.pragma(`synchronous = ${synchronous}`);
      database.pragma('cache_size = 5');
      database.exec('CREATE TABLE t(id INTEGER PRIMARY KEY, x)');
      insertRows(database, 40, pageSize);
      const before = new Uint8Array(readFileSync(path));
      database.exec('BEGIN');
      work(database);
      return {
        before,
        database: new Uint8Array(readFileSync(path)),
        journal: new Uint8Array(readFileSync(`${path}-journal`)),
      };
    });
  });
}

function insertRows(database: Database.Database, count: number, size: number): void {
  database
    .prepare(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
       INSERT INTO t(x) SELECT randomblob(?) FROM n`,
    )
    .run(count, size);
}

function updateAll(database: Database.Database): void {
  database.exec('UPDATE t SET x = randomblob(length(x)) WHERE id % 2 = 0');
  insertRows(database, 10, 600);
}

function readerOf(bytes: Uint8Array): ReadJournal {
  // One buffer for all reads, as a caller with a file would have it.
  const buffer = new Uint8Array(65_536 + 8);
  return (position, length) => {
    const count = Math.max(0, Math.min(length, bytes.length - position));
    buffer.set(bytes.subarray(position, position + count));
    return buffer.subarray(0, count);
  };
}

function rollBack(database: Uint8Array, journal: Uint8Array, options: Partial<RollbackOptions> = {}) {
  let file = database;
  let pageSize = 0;
  let pages = 0;
  for (const step of planRollback({read: readerOf(journal), fileSize: journal.length, ...options})) {
    if (step.kind === 'truncate') {
      pageSize = step.pageSize;
      const resized = new Uint8Array(rolledBackSize(file.length, step.pageCount, pageSize));
      resized.set(file.subarray(0, resized.length));
      file = resized;
      continue;
    }
    const end = step.pgno * pageSize;
    if (end > file.length) {
      const longer = new Uint8Array(end);
      longer.set(file);
      file = longer;
    }
    file.set(step.page, end - pageSize);
    pages++;
  }
  return {file, pages};
}

/** What SQLite makes of the same files when it opens them. */
function rollBackBySqlite(database: Uint8Array, journal: Uint8Array) {
  return withFolder(folder => {
    const path = join(folder, 'a.db');
    writeFileSync(path, database);
    writeFileSync(`${path}-journal`, journal);
    const connection = new Database(path);
    try {
      connection.pragma('schema_version');
    } catch (error) {
      // What is left may be no database any more; the rollback comes before that is noticed.
      if (!(error instanceof Database.SqliteError)) throw error;
    } finally {
      connection.close();
    }
    return {file: new Uint8Array(readFileSync(path)), isJournalGone: !existsSync(`${path}-journal`)};
  });
}

function expectSame(a: Uint8Array, b: Uint8Array): void {
  expect(a.length).toBe(b.length);
  expect(Buffer.compare(a, b)).toBe(0);
}

function segmentCount(journal: Uint8Array): number {
  const magic = Buffer.from('d9d505f920a163d7', 'hex');
  const {sectorSize} = decodeJournalHeader(journal);
  let count = 0;
  for (let at = 0; at + 8 <= journal.length; at += sectorSize) {
    if (Buffer.compare(journal.subarray(at, at + 8), magic) === 0) count++;
  }
  return count;
}

for (const pageSize of PAGE_SIZES) {
  for (const synchronous of ['FULL', 'OFF']) {
    test(`planRollback() restores what SQLite restores: ${pageSize}, synchronous ${synchronous}`, () => {
      const crash = makeCrash({pageSize, synchronous});
      expect(Buffer.compare(crash.database, crash.before)).not.toBe(0);
      const header = decodeJournalHeader(crash.journal);
      expect(header.pageSize).toBe(pageSize);
      expect(header.nRec === JOURNAL_RECORDS_UNKNOWN).toBe(synchronous === 'OFF');
      if (synchronous === 'FULL') expect(segmentCount(crash.journal)).toBeGreaterThan(2);
      const theirs = rollBackBySqlite(crash.database, crash.journal);
      expect(theirs.isJournalGone).toBe(true);
      const ours = rollBack(crash.database, crash.journal);
      expect(ours.pages).toBeGreaterThan(5);
      expectSame(ours.file, theirs.file);
      expectSame(ours.file, crash.before);
    });
  }
}

for (const journalMode of ['PERSIST', 'TRUNCATE']) {
  test(`planRollback() takes no record of an older transaction in mode ${journalMode}`, () => {
    const crash = makeCrash({
      pageSize: 1024,
      journalMode,
      work: database => {
        insertRows(database, 60, 1000);
        database.exec('COMMIT; BEGIN; UPDATE t SET x = 5 WHERE id > 60');
        insertRows(database, 3, 5000);
      },
    });
    const theirs = rollBackBySqlite(crash.database, crash.journal);
    expectSame(rollBack(crash.database, crash.journal).file, theirs.file);
    expect(theirs.file.length).toBeGreaterThan(crash.before.length);
  });
}

const workloads: Readonly<Record<string, (database: Database.Database) => void>> = {
  savepoints: database => {
    database.exec('SAVEPOINT a; UPDATE t SET x = randomblob(900) WHERE id < 20');
    database.exec('SAVEPOINT b; UPDATE t SET x = randomblob(800); ROLLBACK TO b');
    database.exec('UPDATE t SET x = randomblob(700) WHERE id > 10; ROLLBACK TO a; RELEASE a');
    updateAll(database);
  },
  'deleted rows': database => {
    database.exec('DELETE FROM t WHERE id > 3; CREATE TABLE u(y)');
    insertRows(database, 90, 1000);
  },
  'a dropped table': database => {
    database.exec('DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, x, z)');
    insertRows(database, 30, 1000);
  },
};
for (const [name, work] of Object.entries(workloads)) {
  test(`planRollback() undoes ${name}`, () => {
    const crash = makeCrash({pageSize: 1024, work});
    const ours = rollBack(crash.database, crash.journal);
    expectSame(ours.file, rollBackBySqlite(crash.database, crash.journal).file);
    expectSame(ours.file, crash.before);
  });
}

test('planRollback() agrees with SQLite on damaged journals', () => {
  const crashes = ['FULL', 'OFF'].map(synchronous => makeCrash({pageSize: 512, synchronous}));
  const damage = fc.record({
    which: fc.nat(1),
    cut: fc.option(fc.double({min: 0, max: 1, noNaN: true})),
    // Beyond the header anywhere, and in it with preference, but not in the upper half of the page count, which
    // would make a file of terabytes.
    flips: fc.array(fc.oneof(fc.nat(28 * 8 - 1), fc.double({min: 0, max: 1, noNaN: true})), {maxLength: 4}),
    headerWord: fc.option(fc.record({at: fc.constantFrom(8, 12, 20, 24), value: fc.nat(70_000)})),
    tail: fc.uint8Array({maxLength: 40}),
  });
  fc.assert(
    fc.property(damage, ({which, cut, flips, headerWord, tail}) => {
      const crash = crashes[which];
      const size = cut === null ? crash.journal.length : Math.floor(crash.journal.length * cut);
      let journal: Uint8Array = Buffer.concat([crash.journal.subarray(0, size), tail]);
      for (const flip of flips) {
        const bit = flip < 1 ? Math.floor(journal.length * 8 * flip) : flip;
        const isPageCount = bit >= 16 * 8 && bit < 18 * 8;
        if (bit < journal.length * 8 && !isPageCount) journal = flipBit(journal, bit);
      }
      if (headerWord !== null && journal.length >= 28) {
        new DataView(journal.buffer, journal.byteOffset).setUint32(headerWord.at, headerWord.value);
      }
      const ours = looksHot(journal)
        ? rollBack(crash.database, journal, {databasePageSize: 512}).file
        : crash.database;
      expectSame(ours, rollBackBySqlite(crash.database, journal).file);
    }),
    {numRuns: 250},
  );
});

test('planRollback() stops where a record is damaged, as SQLite does', () => {
  const crash = makeCrash({pageSize: 512, synchronous: 'OFF'});
  const whole = rollBack(crash.database, crash.journal).pages;
  const at = (record: number) => 512 + record * 520;
  const spoil: readonly ((journal: DataView) => void)[] = [
    journal => journal.setUint32(at(3), 0),
    journal => journal.setUint32(at(3), new LockBytes().lockPgno(512)),
    journal => journal.setUint32(at(3) + 516, 1),
    journal => journal.setUint8(at(3) + 4 + 312, journal.getUint8(at(3) + 4 + 312) + 1),
  ];
  for (const change of spoil) {
    const journal = crash.journal.slice();
    change(new DataView(journal.buffer));
    const ours = rollBack(crash.database, journal);
    expect(ours.pages).toBe(3);
    expect(whole).toBeGreaterThan(3);
    expectSame(ours.file, rollBackBySqlite(crash.database, journal).file);
  }
});

test('planRollback() writes a page twice if the journal has it twice: the later one stays', () => {
  const crash = makeCrash({pageSize: 512, synchronous: 'OFF'});
  const {nonce} = decodeJournalHeader(crash.journal);
  const record = crash.journal.slice(512 + 520, 512 + 2 * 520);
  record.fill(0x77, 4, 516);
  new DataView(record.buffer).setUint32(516, journalChecksum(nonce, record.subarray(4, 516)));
  const records = Math.floor((crash.journal.length - 512) / 520);
  const journal = Buffer.concat([crash.journal.subarray(0, 512 + records * 520), record]);
  const ours = rollBack(crash.database, journal);
  expect(ours.pages).toBe(rollBack(crash.database, crash.journal).pages + 1);
  expectSame(ours.file, rollBackBySqlite(crash.database, journal).file);
});

test('planRollback() makes a database longer that lost its end, as SQLite does', () => {
  const crash = makeCrash({pageSize: 512});
  for (const size of [512, 5 * 512 + 7, crash.before.length - 1, crash.before.length - 512]) {
    const database = crash.database.slice(0, size);
    const ours = rollBack(database, crash.journal);
    expectSame(ours.file, rollBackBySqlite(database, crash.journal).file);
  }
});

test('planRollback() passes over pages that the transaction added, whatever their checksum', () => {
  const crash = makeCrash({pageSize: 512, synchronous: 'OFF'});
  const journal = crash.journal.slice();
  const view = new DataView(journal.buffer);
  view.setUint32(512 + 520, decodeJournalHeader(journal).initialPageCount + 1);
  view.setUint32(512 + 520 + 516, 0);
  const ours = rollBack(crash.database, journal);
  expect(ours.pages).toBe(rollBack(crash.database, crash.journal).pages - 1);
  expectSame(ours.file, rollBackBySqlite(crash.database, journal).file);
});

test('planRollback() takes a journal of less than 512 bytes for empty, as SQLite does', () => {
  const crash = makeCrash({pageSize: 512, work: database => insertRows(database, 60, 600)});
  for (const [size, restored] of [
    [511, crash.database.length],
    [512, crash.before.length],
  ]) {
    const journal = crash.journal.slice(0, size);
    const ours = rollBack(crash.database, journal);
    expect(ours.file.length).toBe(restored);
    expectSame(ours.file, rollBackBySqlite(crash.database, journal).file);
  }
});

test('planRollback() ends at the lock page wherever that is', () => {
  const crash = makeCrash({pageSize: 512, synchronous: 'OFF'});
  const pgno = new DataView(crash.journal.buffer).getUint32(512 + 2 * 520);
  const lockBytes = new LockBytes((pgno - 1) * 512);
  expect(rollBack(crash.database, crash.journal, {lockBytes}).pages).toBe(2);
});

test('planRollback() needs a page size from somewhere', () => {
  const crash = makeCrash({pageSize: 512});
  const journal = crash.journal.slice();
  new DataView(journal.buffer).setUint32(24, 0);
  expect(codeOf(() => rollBack(crash.database, journal))).toBe('JOURNAL_BAD_PAGE_SIZE');
  expectSame(rollBack(crash.database, journal, {databasePageSize: 512}).file, crash.before);
  expectSame(rollBackBySqlite(crash.database, journal).file, crash.before);
});

test('planRollback() has nothing to do for other files', () => {
  for (const journal of [new Uint8Array(0), new Uint8Array(511), new Uint8Array(4096).fill(0xd9)]) {
    expect([...planRollback({read: readerOf(journal), fileSize: journal.length})]).toEqual([]);
  }
});

/** A journal with a super-journal's name at its end, written as SQLite writes it. */
function withSuperJournal(journal: Uint8Array, name: string | Uint8Array): Uint8Array {
  const text = Buffer.from(name);
  const padded = Math.ceil(journal.length / 512) * 512;
  const bytes = new Uint8Array(padded + 20 + text.length);
  const view = new DataView(bytes.buffer);
  bytes.set(journal);
  view.setUint32(padded, new LockBytes().lockPgno(512));
  bytes.set(text, padded + 4);
  view.setUint32(padded + 4 + text.length, text.length);
  view.setUint32(padded + 8 + text.length, new Int8Array(text).reduce((sum, byte) => sum + byte, 0) >>> 0);
  bytes.set(Buffer.from('d9d505f920a163d7', 'hex'), padded + 12 + text.length);
  return bytes;
}

test("readSuperJournalName() finds the name that decides over SQLite's rollback", () => {
  const crash = makeCrash({pageSize: 512});
  withFolder(folder => {
    const name = join(folder, 'süper-mj12345678');
    const journal = withSuperJournal(crash.journal, name);
    expect(readSuperJournalName(readerOf(journal), journal.length)).toBe(name);
    const gone = rollBackBySqlite(crash.database, journal);
    expectSame(gone.file, crash.database);
    expect(gone.isJournalGone).toBe(true);
    writeFileSync(name, 'x\0');
    expectSame(rollBackBySqlite(crash.database, journal).file, crash.before);
    expectSame(rollBack(crash.database, journal).file, crash.before);
  });
});

test('readSuperJournalName() finds none in other files, damaged ones and every truncation', () => {
  const journal = withSuperJournal(new Uint8Array(512), '/a/b-mj0');
  expect(readSuperJournalName(readerOf(journal), journal.length)).toBe('/a/b-mj0');
  for (let size = 0; size < journal.length; size++) {
    expect(readSuperJournalName(readerOf(journal.subarray(0, size)), size)).toBeUndefined();
  }
  for (let bit = (512 + 4) * 8; bit < journal.length * 8; bit++) {
    expect(readSuperJournalName(readerOf(flipBit(journal, bit)), journal.length)).toBeUndefined();
  }
  const nameOf = (name: string | Uint8Array) => {
    const bytes = withSuperJournal(new Uint8Array(512), name);
    return readSuperJournalName(readerOf(bytes), bytes.length);
  };
  expect(nameOf('x'.repeat(512))).toBe('x'.repeat(512));
  expect(nameOf('x'.repeat(513))).toBeUndefined();
  expect(nameOf('')).toBeUndefined();
  expect(codeOf(() => nameOf(Uint8Array.of(0x2f, 0xff)))).toBe('JOURNAL_BAD_NAME');
});

test('journalChecksum() adds every 200th byte from the end, but not the first', () => {
  const page = new Uint8Array(1024);
  for (const at of [24, 224, 424, 624, 824]) page[at] = 200;
  page[0] = 1;
  page[1023] = 1;
  expect(journalChecksum(5, page)).toBe(1005);
  expect(journalChecksum(0xffffffff, page)).toBe(999);
  const exact = new Uint8Array(512).fill(1);
  expect(journalChecksum(0, exact)).toBe(2);
});

test('decodeJournalHeader() reads golden bytes and refuses others', () => {
  const bytes = Buffer.from('d9d505f920a163d700000002000000030000000400000200' + '00010000', 'hex');
  expect(decodeJournalHeader(bytes)).toEqual({
    nRec: 2,
    nonce: 3,
    initialPageCount: 4,
    sectorSize: 512,
    pageSize: 65_536,
  });
  for (let size = 0; size < 28; size++) {
    expect(codeOf(() => decodeJournalHeader(bytes.subarray(0, size)))).toBe('JOURNAL_TRUNCATED');
  }
  const codes = Array.from({length: 28 * 8}, (_, bit) =>
    codeOf(() => decodeJournalHeader(flipBit(bytes, bit))),
  );
  expect(new Set(codes.slice(0, 64))).toEqual(new Set(['JOURNAL_BAD_MAGIC']));
  expect(new Set(codes.slice(64, 160))).toEqual(new Set(['none']));
  expect(new Set(codes.slice(160, 192))).toEqual(new Set(['JOURNAL_BAD_SECTOR_SIZE']));
  expect(new Set(codes.slice(192))).toEqual(new Set(['JOURNAL_BAD_PAGE_SIZE', 'none']));
});

test('isZeroedJournalHeader() knows a PERSIST commit from a journal not yet synced', () => {
  withFolder(folder => {
    const path = join(folder, 'a.db');
    withDatabase(path, database => {
      const journal = () => readFileSync(`${path}-journal`);
      database.pragma('journal_mode = PERSIST');
      database.exec('CREATE TABLE t(x)');
      expect(isZeroedJournalHeader(journal())).toBe(true);
      expect(looksHot(journal())).toBe(false);
      database.exec('BEGIN; INSERT INTO t VALUES (1)');
      expect(isZeroedJournalHeader(journal())).toBe(false);
      expect(looksHot(journal())).toBe(false);
      database.exec('COMMIT');
      expect(isZeroedJournalHeader(journal())).toBe(true);
    });
  });
  expect(isZeroedJournalHeader(new Uint8Array(27))).toBe(false);
  expect(looksHot(new Uint8Array(0))).toBe(false);
});

test('rolledBackSize() leaves a file alone that lacks less than a page', () => {
  expect(rolledBackSize(5000, 1, 4096)).toBe(4096);
  expect(rolledBackSize(5000, 2, 4096)).toBe(5000);
  expect(rolledBackSize(4096, 2, 4096)).toBe(8192);
  expect(rolledBackSize(8192, 2, 4096)).toBe(8192);
  expect(rolledBackSize(0, 0, 4096)).toBe(0);
});
