import {execFileSync} from 'node:child_process';
import {existsSync, readFileSync, statSync} from 'node:fs';
import {join} from 'node:path';
import {expect, test} from 'vitest';
import {applyPatiently, expectSameBytes, makeDirectory, openFollower} from './support/follower.ts';
import {Primary} from './support/primary.ts';

const MODES = [
  {mode: 'wal', pragmas: ['journal_mode=WAL']},
  {mode: 'rollback', pragmas: ['journal_mode=DELETE']},
] as const;

/** What another process's SQLite says, one JSON text. */
function query(path: string, sql: string): unknown {
  const script = `const D = require('better-sqlite3');
    try {
      const d = new D(process.argv[1], {timeout: 50});
      console.log(JSON.stringify(d.prepare(process.argv[2]).all()));
    } catch (e) { console.log(JSON.stringify(e.code ?? String(e))); }`;
  return JSON.parse(execFileSync(process.execPath, ['-e', script, path, sql], {encoding: 'utf8'}));
}

for (const {mode, pragmas} of MODES) {
  test(`apply() in ${mode} mode gives the primary's bytes, after reopening too`, () => {
    using directory = makeDirectory();
    const primary = new Primary(join(directory.path, 'primary.db'), 1, pragmas);
    const path = join(directory.path, 'app.db');
    let follower = openFollower(path, {checkpointFrameCount: 100});
    expect(follower.apply(primary.capture())).toBe('applied');
    expect(follower.journalMode).toBe(mode);
    for (let i = 0; i < 120; i++) {
      expect(follower.apply(primary.step())).toBe('applied');
      if (i % 10 === 0) expectSameBytes(follower, primary.bytes);
      if (follower.isCheckpointDue) follower.checkpointStep(0);
      if (i % 40 === 39) {
        follower.close();
        follower = openFollower(path);
        expectSameBytes(follower, primary.bytes);
      }
    }
    expect(query(path, 'SELECT v FROM version')).toEqual([{v: primary.version}]);
    expect(query(path, 'PRAGMA integrity_check')).toEqual([{integrity_check: 'ok'}]);
    const {frames, backfilled} = follower.checkpoint();
    expect(backfilled).toBe(frames);
    expect(Buffer.compare(readFileSync(path), primary.bytes)).toBe(0);
    primary.close();
    follower.close();
  });

  test(`an app on a ${mode} follower gets SQLITE_BUSY for a write, and after release() it writes`, () => {
    using directory = makeDirectory();
    const primary = new Primary(join(directory.path, 'primary.db'), 2, pragmas);
    const path = join(directory.path, 'app.db');
    const follower = openFollower(path);
    follower.apply(primary.capture());
    expect(query(path, 'UPDATE version SET v = 5 RETURNING v')).toBe('SQLITE_BUSY');
    expect(query(path, 'SELECT v FROM version')).toEqual([{v: 0}]);
    follower.release();
    expect(query(path, 'UPDATE version SET v = 5 RETURNING v')).toEqual([{v: 5}]);
    primary.close();
  });
}

test('a closed reader leaves the WAL where it is', () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 3, ['journal_mode=WAL']);
  const path = join(directory.path, 'app.db');
  const follower = openFollower(path);
  follower.apply(primary.capture());
  follower.apply(primary.step());
  const size = statSync(`${path}-wal`).size;
  query(path, 'SELECT v FROM version');
  expect(statSync(`${path}-wal`).size).toBe(size);
  follower.close();
  primary.close();
});

test('apply() begins the WAL anew once it is in the database file, with new salts', () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 4, ['journal_mode=WAL']);
  const path = join(directory.path, 'app.db');
  const follower = openFollower(path, {walSizeMax: 0});
  follower.apply(primary.capture());
  for (let i = 0; i < 5; i++) follower.apply(primary.step());
  const before = follower.walPosition;
  expect(follower.checkpoint().restarted).toBe(true);
  expect(follower.walPosition?.mxFrame).toBe(0);
  expect(statSync(`${path}-wal`).size).toBe(0);
  follower.apply(primary.step());
  const after = follower.walPosition;
  expect(after?.salt1).not.toBe(before?.salt1);
  expect(after?.mxFrame).toBeGreaterThan(0);
  expect(query(path, 'SELECT v FROM version')).toEqual([{v: 6}]);
  expectSameBytes(follower, primary.bytes);
  follower.close();
  primary.close();
});

test('the primary may change between WAL and rollback mode and change its page size', () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 5, ['page_size=1024', 'auto_vacuum=FULL']);
  const path = join(directory.path, 'app.db');
  const follower = openFollower(path);
  const changes = [
    'PRAGMA journal_mode=WAL',
    'PRAGMA journal_mode=DELETE',
    'PRAGMA page_size=8192; VACUUM',
    'PRAGMA journal_mode=WAL',
    'DELETE FROM bulk; VACUUM',
    'PRAGMA journal_mode=DELETE; PRAGMA page_size=512; PRAGMA auto_vacuum=NONE; VACUUM',
    'PRAGMA page_size=65536; VACUUM; PRAGMA journal_mode=WAL',
  ];
  follower.apply(primary.capture());
  for (const sql of changes) {
    primary.database.exec(sql);
    applyPatiently(follower, primary.capture());
    expectSameBytes(follower, primary.bytes);
    expect(follower.journalMode).toBe(primary.bytes[19] === 2 ? 'wal' : 'rollback');
    for (let i = 0; i < 10; i++) applyPatiently(follower, primary.step());
    expectSameBytes(follower, primary.bytes);
    expect(query(path, 'SELECT v FROM version')).toEqual([{v: primary.version}]);
    expect(query(path, 'PRAGMA integrity_check')).toEqual([{integrity_check: 'ok'}]);
  }
  expect(existsSync(`${path}-journal`)).toBe(false);
  follower.close();
  primary.close();
});

test('open() makes nothing when there is no database', () => {
  using directory = makeDirectory();
  const path = join(directory.path, 'app.db');
  const follower = openFollower(path);
  expect(follower.pageCount).toBe(0);
  follower.close();
  expect(existsSync(path)).toBe(false);
});
