import {closeSync, existsSync, openSync, readFileSync, writeSync} from 'node:fs';
import {join} from 'node:path';
import {expect, test} from 'vitest';
import {LockBytes} from '../../../src/sqlite/lock-bytes.ts';
import {decodeWalIndexHeader, encodeWalIndexHeader} from '../../../src/sqlite/wal-index.ts';
import {App} from './support/app.ts';
import {expectSameBytes, makeDirectory, openFollower} from './support/follower.ts';
import {difference, Primary} from './support/primary.ts';

for (const mode of ['WAL', 'DELETE']) {
  test(`journal_mode=${mode}: a connection that stays open reads, is refused, writes after release(), and again`, async () => {
    using directory = makeDirectory();
    const primary = new Primary(join(directory.path, 'primary.db'), 41, [`journal_mode=${mode}`]);
    const path = join(directory.path, 'app.db');
    let follower = openFollower(path);
    follower.apply(primary.capture());
    const app = new App(path);
    for (let round = 0; round < 3; round++) {
      expect(await app.run('SELECT v FROM version')).toEqual([[round]]);
      expect(await app.run('UPDATE version SET v = v + 1')).toBe('database is locked');
      follower.release();
      expect(await app.run('UPDATE version SET v = v + 1')).toEqual([]);
      follower = openFollower(path);
    }
    // What the app wrote is what the follower goes on from.
    const page = new Uint8Array(follower.pageSize);
    follower.readPage(1, page);
    expect(page[19]).toBe(mode === 'WAL' ? 2 : 1);
    expect(await app.run('PRAGMA integrity_check')).toEqual([['ok']]);
    await app.close();
    follower.close();
    primary.close();
  });

  test(`journal_mode=${mode}: open() while an app writes gives up after its time, and works when the app is done`, async () => {
    using directory = makeDirectory();
    const primary = new Primary(join(directory.path, 'primary.db'), 42, [`journal_mode=${mode}`]);
    const path = join(directory.path, 'app.db');
    const first = openFollower(path);
    first.apply(primary.capture());
    first.release();
    const app = new App(path);
    await app.run('BEGIN IMMEDIATE');
    await app.run('UPDATE version SET v = 7');
    expect(() => openFollower(path, {lockTimeoutMs: 20})).toThrow(
      expect.objectContaining({code: 'APPLY_LOCKED'}),
    );
    expect(await app.run('COMMIT')).toEqual([]);
    const follower = openFollower(path);
    expect(await app.run('SELECT v FROM version')).toEqual([[7]]);
    await app.close();
    follower.close();
    primary.close();
  });
}

test('open() gives up while an app has the database for itself', async () => {
  using directory = makeDirectory();
  const path = join(directory.path, 'app.db');
  const app = new App(path);
  await app.run('PRAGMA locking_mode=EXCLUSIVE');
  await app.run('PRAGMA journal_mode=WAL');
  await app.run('CREATE TABLE t(a)');
  expect(existsSync(`${path}-shm`)).toBe(false);
  expect(() => openFollower(path, {lockTimeoutMs: 20})).toThrow(
    expect.objectContaining({code: 'APPLY_LOCKED'}),
  );
  await app.close();
});

test('a hot journal that an app left is rolled back, and said so', async () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 43);
  const path = join(directory.path, 'app.db');
  const first = openFollower(path);
  first.apply(primary.capture());
  first.release();
  const app = new App(path);
  await app.run('PRAGMA cache_size=1');
  await app.run('BEGIN');
  await app.run('UPDATE stamp SET v = 9, filler = randomblob(3000)');
  // The app dies: its journal stays, its locks don't.
  const files = ['', '-journal'].map(suffix => readFileSync(path + suffix));
  await app.close();
  for (const [i, suffix] of ['', '-journal'].entries()) {
    const fd = openSync(path + suffix, 'w');
    writeSync(fd, files[i]);
    closeSync(fd);
  }
  const follower = openFollower(path);
  expect(follower.recovery.isRolledBack).toBe(true);
  expect(existsSync(`${path}-journal`)).toBe(false);
  expectSameBytes(follower, primary.bytes);
  follower.close();
  primary.close();
});

/** Damages done to the mapped index while no daemon was there. */
const DAMAGES: Record<string, (shm: Uint8Array) => void> = {
  'a restarted header': shm => {
    const header = decodeWalIndexHeader(shm);
    encodeWalIndexHeader(shm, {...header, mxFrame: 0, salt1: header.salt1 + 1, salt2: 99});
    shm.copyWithin(48, 0, 48);
    shm.fill(0, 96, 100);
  },
  'a torn header': shm => shm.fill(0x55, 10, 20),
  'no header': shm => shm.fill(0, 0, 136),
  'entries of frames that were never written': shm => shm.fill(0x11, 136 + 4 * 1000, 136 + 4 * 1100),
  'another hash table': shm => shm.fill(0, 16_384, 32_768),
};

for (const [damage, inflict] of Object.entries(DAMAGES)) {
  test(`open() mends ${damage} in the wal-index under an open connection`, async () => {
    using directory = makeDirectory();
    const primary = new Primary(join(directory.path, 'primary.db'), 44, ['journal_mode=WAL']);
    const path = join(directory.path, 'app.db');
    const first = openFollower(path);
    first.apply(primary.capture());
    for (let i = 0; i < 5; i++) first.apply(primary.step());
    const app = new App(path, 5);
    expect(await app.run('SELECT v FROM version')).toEqual([[5]]);
    first.close();
    const shm = new Uint8Array(readFileSync(`${path}-shm`));
    inflict(shm);
    const fd = openSync(`${path}-shm`, 'r+');
    writeSync(fd, shm);
    closeSync(fd);

    const follower = openFollower(path);
    expectSameBytes(follower, primary.bytes);
    expect(await app.run('SELECT v FROM version')).toEqual([[5]]);
    for (let i = 0; i < 5; i++) follower.apply(primary.step());
    expect(await app.run('SELECT v, (SELECT min(v) FROM stamp) FROM version')).toEqual([[10, 10]]);
    follower.checkpoint();
    expect(await app.run('PRAGMA integrity_check')).toEqual([['ok']]);
    await app.close();
    follower.close();
    primary.close();
  });
}

test('a transaction of many megabytes goes over buffers and index segments', async () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 45, ['page_size=512', 'journal_mode=WAL']);
  const path = join(directory.path, 'app.db');
  const follower = openFollower(path);
  follower.apply(primary.capture());
  const app = new App(path, 5);
  expect(await app.run('SELECT count(*) FROM bulk')).toEqual([[0]]);
  primary.database.exec('INSERT INTO bulk(content) VALUES (randomblob(5000000))');
  follower.apply(primary.capture());
  expect(follower.walPosition?.mxFrame).toBeGreaterThan(8200);
  expect(await app.run('SELECT length(content) FROM bulk')).toEqual([[5_000_000]]);
  primary.database.exec('DELETE FROM bulk; VACUUM');
  follower.apply(primary.capture());
  while (!follower.checkpointStep(0));
  expectSameBytes(follower, primary.bytes);
  expect(await app.run('PRAGMA integrity_check')).toEqual([['ok']]);
  follower.close();
  const again = openFollower(path);
  expectSameBytes(again, primary.bytes);
  again.close();
  await app.close();
  primary.close();
});

test('apply() refuses a transaction that contradicts itself and changes nothing', () => {
  using directory = makeDirectory();
  for (const mode of ['WAL', 'DELETE']) {
    const primary = new Primary(join(directory.path, `${mode}-primary.db`), 46, [`journal_mode=${mode}`]);
    const follower = openFollower(join(directory.path, mode), {lockBytes: new LockBytes(2 ** 30)});
    follower.apply(primary.capture());
    const {bytes} = primary;
    const {pageSize, commit} = difference(new Uint8Array(0), bytes);
    const page = new Uint8Array(pageSize);
    const lockPgno = 2 ** 30 / pageSize + 1;
    const bad = [
      {
        commit,
        pages: [
          {pgno: 3, page},
          {pgno: 2, page},
        ],
      },
      {
        commit,
        pages: [
          {pgno: 2, page},
          {pgno: 2, page},
        ],
      },
      {commit, pages: [{pgno: commit + 1, page}]},
      {commit: lockPgno + 1, pages: [{pgno: lockPgno, page}]},
      {commit, pages: [{pgno: 2, page: page.subarray(1)}]},
      {commit, pages: [{pgno: 1, page}]},
    ];
    for (const {pages, ...rest} of bad) {
      const transaction = {pageSize, pageCountHint: 0, ...rest, pages: () => pages};
      expect(() => follower.apply(transaction)).toThrow(
        expect.objectContaining({code: 'APPLY_BAD_TRANSACTION'}),
      );
      expectSameBytes(follower, bytes);
    }
    follower.apply(primary.step());
    expectSameBytes(follower, primary.bytes);
    follower.close();
    primary.close();
  }
});

test('checkpoint steps between transactions keep the WAL short', () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 47, ['journal_mode=WAL']);
  const follower = openFollower(join(directory.path, 'app.db'), {checkpointFrameCount: 100});
  follower.apply(primary.capture());
  let frames = 0;
  for (let i = 0; i < 300; i++) {
    follower.apply(primary.step());
    if (follower.isCheckpointDue) follower.checkpointStep(0);
    frames = Math.max(frames, follower.walPosition?.mxFrame ?? 0);
  }
  expect(frames).toBeLessThan(1500);
  expectSameBytes(follower, primary.bytes);
  follower.close();
  primary.close();
});
