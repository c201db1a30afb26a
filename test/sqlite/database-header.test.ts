import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {expect, test} from 'vitest';
import {
  decodeDatabaseHeader,
  effectivePageCount,
  hasSqliteMagic,
  isWalHeader,
} from '../../src/sqlite/database-header.ts';
import {codeOf, flipBit, PAGE_SIZES, withDatabase, withFolder} from './support.ts';

/** A real database and what SQLite says about it. */
function makeDatabase(pageSize: number, journalMode: string) {
  return withFolder(folder => {
    const path = join(folder, 'a.db');
    const facts = withDatabase(path, database => {
      database.pragma(`page_size = ${pageSize}`);
      database.pragma('auto_vacuum = INCREMENTAL');
      database.pragma(`journal_mode = ${journalMode}`);
      database.exec('CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(200000)); DELETE FROM t');
      database.exec('PRAGMA user_version = 7; PRAGMA application_id = 9');
      database.pragma('wal_checkpoint(TRUNCATE)');
      const ask = (name: string) => database.pragma(name, {simple: true});
      return {
        pageCount: ask('page_count'),
        freelistCount: ask('freelist_count'),
        schemaCookie: ask('schema_version'),
        sqliteVersion: database.prepare('SELECT sqlite_version()').pluck().get(),
      };
    });
    return {...facts, bytes: readFileSync(path)};
  });
}

for (const pageSize of PAGE_SIZES) {
  test(`decodeDatabaseHeader() agrees with SQLite at page size ${pageSize}`, () => {
    const facts = makeDatabase(pageSize, 'DELETE');
    const header = decodeDatabaseHeader(facts.bytes);
    expect(header).toMatchObject({
      pageSize,
      writeVersion: 1,
      readVersion: 1,
      reservedBytes: 0,
      pageCount: facts.pageCount,
      freelistCount: facts.freelistCount,
      schemaCookie: facts.schemaCookie,
      schemaFormat: 4,
      textEncoding: 1,
      userVersion: 7,
      isIncrementalVacuum: true,
      applicationId: 9,
      versionValidFor: header.changeCounter,
    });
    const version = `${header.sqliteVersion}`.match(/^(\d+)(\d{3})(\d{3})$/);
    expect(version?.slice(1).map(Number).join('.')).toBe(facts.sqliteVersion);
    expect(effectivePageCount(header, facts.bytes.length)).toBe(facts.pageCount);
    expect(isWalHeader(header)).toBe(false);
  });
}

test('isWalHeader() knows a database in WAL mode', () => {
  const header = decodeDatabaseHeader(makeDatabase(4096, 'WAL').bytes);
  expect(isWalHeader(header)).toBe(true);
  expect(header.writeVersion).toBe(2);
});

test('effectivePageCount() believes the file when the header is stale', () => {
  const header = decodeDatabaseHeader(makeDatabase(4096, 'DELETE').bytes);
  const stale = {...header, versionValidFor: header.changeCounter + 1};
  expect(effectivePageCount(stale, 4096 * 5)).toBe(5);
  expect(effectivePageCount(stale, 4096 * 5 + 1)).toBe(6);
  expect(effectivePageCount({...header, pageCount: 0}, 4096 * 3)).toBe(3);
  expect(effectivePageCount({...header, pageCount: 1000}, 4096)).toBe(1000);
});

test('hasSqliteMagic() wants all sixteen bytes', () => {
  const magic = Buffer.from('53514c69746520666f726d6174203300', 'hex');
  expect(hasSqliteMagic(magic)).toBe(true);
  for (let size = 0; size < 16; size++) expect(hasSqliteMagic(magic.subarray(0, size))).toBe(false);
  for (let bit = 0; bit < 128; bit++) expect(hasSqliteMagic(flipBit(magic, bit))).toBe(false);
});

test('decodeDatabaseHeader() refuses every truncation and takes flipped bits for what they are', () => {
  const bytes = makeDatabase(1024, 'DELETE').bytes.subarray(0, 100);
  for (let size = 0; size < 100; size++) {
    expect(codeOf(() => decodeDatabaseHeader(bytes.subarray(0, size)))).toBe('DATABASE_TRUNCATED');
  }
  const codes = new Map<number, Set<string>>();
  for (let bit = 0; bit < 800; bit++) {
    const at = bit >> 3;
    const code = codeOf(() => decodeDatabaseHeader(flipBit(bytes, bit)));
    codes.set(at, (codes.get(at) ?? new Set()).add(code));
  }
  for (const [at, found] of codes) {
    if (at < 16) expect([...found]).toEqual(['DATABASE_BAD_MAGIC']);
    else if (at < 18) expect([...found]).toEqual(['DATABASE_BAD_PAGE_SIZE']);
    else if (at === 20) expect(found).toContain('none');
    else if (at >= 21 && at < 24) expect([...found]).toEqual(['DATABASE_BAD_HEADER']);
    else expect([...found]).toEqual(['none']);
  }
});

test('decodeDatabaseHeader() refuses pages with less than 480 usable bytes', () => {
  const bytes = makeDatabase(512, 'DELETE').bytes;
  bytes[20] = 32;
  expect(decodeDatabaseHeader(bytes).reservedBytes).toBe(32);
  bytes[20] = 33;
  expect(codeOf(() => decodeDatabaseHeader(bytes))).toBe('DATABASE_BAD_HEADER');
});
