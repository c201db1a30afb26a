import {join} from 'node:path';
import Database from 'better-sqlite3';
import {expect, test} from 'vitest';
import {FollowWorld, RecordedPrimary} from './support/followed.ts';

/** Compares what SQLite finds, which rolls a hot journal back. */
function expectContent(path: string, bytes: Uint8Array): void {
  const database = new Database(path, {timeout: 0});
  try {
    database.prepare('SELECT v FROM version').all(); // What recovers; an image alone is taken as it is.
    expect(Buffer.compare(database.serialize(), bytes)).toBe(0);
  } finally {
    database.close();
  }
}

/** Fails the disk calls that `pattern` matches from the `nth` on; returns how to end that. */
function fail(world: FollowWorld, pattern: RegExp, nth = 1): () => void {
  let left = nth;
  world.onCall = name => {
    if (pattern.test(name) && --left <= 0)
      throw Object.assign(new Error(`disk is full: ${name}`), {code: 'ENOSPC'});
  };
  return () => {
    world.onCall = () => {};
  };
}

test.each(['follower:open-mounted', 'follower:open'])(
  'finishApply() applies a first transaction after it failed at %s',
  call => {
    using world = new FollowWorld();
    using primary = new RecordedPrimary(join(world.directory, 'primary.db'));
    const database = world.database('a1', 'app.db');
    database.accept([primary.first()]);
    const mend = fail(world, new RegExp(`^${call}$`));
    expect(() => database.finishApply()).toThrow('disk is full');
    mend();
    expect(database.finishApply()).toBe('done');
    expectContent(world.path('app.db'), primary.bytes);
    database.close();
  },
);

test('finishApply() goes on after a switch to WAL mode for which the WAL could not be opened', () => {
  using world = new FollowWorld();
  using primary = new RecordedPrimary(join(world.directory, 'primary.db'));
  const database = world.database('a1', 'app.db');
  database.accept([primary.first()]);
  expect(database.finishApply()).toBe('done');
  database.accept([primary.exec('PRAGMA journal_mode=WAL')]);
  const mend = fail(world, /^follower-wal:open$/);
  expect(() => database.finishApply()).toThrow('Cannot open the WAL');
  mend();
  expect(database.finishApply()).toBe('done');
  database.accept([primary.step()]);
  expect(database.finishApply()).toBe('done');
  expectContent(world.path('app.db'), primary.bytes);
  database.close();
});

test('finishApply() rolls a journal back that a failed attempt left hot, before it writes another', () => {
  using world = new FollowWorld();
  using primary = new RecordedPrimary(join(world.directory, 'primary.db'));
  const database = world.database('a1', 'app.db');
  database.accept([primary.first()]);
  expect(database.finishApply()).toBe('done');
  const before = primary.bytes;
  database.accept([primary.step()]);
  let mend = fail(world, /^follower-rollback-apply:write$|^follower-rollback:/, 2);
  expect(() => database.finishApply()).toThrow('Cannot undo');
  mend = fail(world, /^follower-journal:write$/);
  expect(() => database.finishApply()).toThrow('disk is full');
  expectContent(world.path('app.db'), before);
  mend();
  expect(database.finishApply()).toBe('done');
  expectContent(world.path('app.db'), primary.bytes);
  database.close();
});

test('maintain() brings the files up to a log that they could not follow', () => {
  using world = new FollowWorld();
  using primary = new RecordedPrimary(join(world.directory, 'primary.db'));
  const database = world.database('a1', 'app.db');
  database.accept([primary.exec('PRAGMA journal_mode=WAL')]);
  expect(database.finishApply()).toBe('done');
  database.accept([primary.step()]);
  const mend = fail(world, /^follower-wal:append$/);
  expect(() => database.finishApply()).toThrow('disk is full');
  expect(() => database.maintain(1000)).toThrow('disk is full');
  mend();
  database.maintain(3000);
  expectContent(world.path('app.db'), primary.bytes);
  database.close();
});
