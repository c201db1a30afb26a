import {openSync, writeSync} from 'node:fs';
import {join} from 'node:path';
import {setImmediate} from 'node:timers/promises';
import {expect, test} from 'vitest';
import type {FollowerDatabase} from '../../../src/engine/apply/follower-database.ts';
import {Disk} from '../../../src/lib/disk.ts';
import {applyPatiently, expectSameBytes, makeDirectory, openFollower, sleep} from './support/follower.ts';
import {Primary} from './support/primary.ts';
import {Reader, type ReaderResult} from './support/readers.ts';

const RUN_MS = 3000;

async function startReaders(path: string): Promise<Reader[]> {
  return Promise.all([
    Reader.start(path, 'short', 5),
    Reader.start(path, 'reopen', 2000),
    Reader.start(path, 'long', 20),
    Reader.start(path, 'python'),
  ]);
}

async function stopAll(readers: readonly Reader[]): Promise<ReaderResult[]> {
  return Promise.all(readers.map(reader => reader.stop()));
}

async function run(primary: Primary, follower: FollowerDatabase): Promise<void> {
  const end = performance.now() + RUN_MS;
  for (let i = 0; performance.now() < end; i++) {
    applyPatiently(follower, primary.step());
    if (follower.isCheckpointDue) follower.checkpointStep(0);
    if (i % 10 === 0) await setImmediate();
  }
}

for (const pragma of ['journal_mode=WAL', 'journal_mode=DELETE']) {
  test(`with ${pragma}, readers in other processes see whole states only, and always a newer one`, {
    timeout: 60_000,
  }, async () => {
    using directory = makeDirectory();
    const primary = new Primary(join(directory.path, 'primary.db'), 11, [pragma]);
    const path = join(directory.path, 'app.db');
    const follower = openFollower(path, {checkpointFrameCount: 200});
    follower.apply(primary.capture());
    const readers = await startReaders(path);
    await run(primary, follower);
    for (const result of await stopAll(readers)) {
      expect(result.errors).toEqual([]);
      expect(result.reads).toBeGreaterThan(3);
    }
    expectSameBytes(follower, primary.bytes);
    follower.close();
    primary.close();
  });
}

test('transactions of a primary that left WAL mode reach readers that have the WAL open', {
  timeout: 60_000,
}, async () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 12, ['journal_mode=WAL']);
  const path = join(directory.path, 'app.db');
  let nowMs = 0;
  const follower = openFollower(path, {nowMs: () => nowMs});
  follower.apply(primary.capture());
  const readers = await Promise.all([Reader.start(path, 'short'), Reader.start(path, 'python')]);
  // Each has the WAL open once it has read; from then on it holds SHARED.
  sleep(300);
  primary.database.pragma('journal_mode=DELETE');
  expect(follower.apply(primary.capture())).toBe('applied');
  expect(follower.journalMode).toBe('rollback');
  for (let i = 0; i < 200; i++) {
    nowMs += 100;
    expect(follower.apply(primary.step())).toBe('applied');
  }
  expect(follower.walPosition).toBeDefined();
  const late = await Reader.start(path, 'short');
  sleep(200);
  for (const result of await stopAll([...readers, late])) {
    expect(result.errors).toEqual([]);
    expect(result.versionMax).toBeGreaterThan(0);
  }
  // With the last of them gone the file becomes what it says it is.
  nowMs += 2000;
  expect(follower.apply(primary.step())).toBe('applied');
  expect(follower.walPosition).toBeUndefined();
  expectSameBytes(follower, primary.bytes);
  follower.close();
  primary.close();
});

test('a long read transaction is stable, holds the checkpoint back, and not the transactions', {
  timeout: 60_000,
}, async () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 13, ['journal_mode=WAL']);
  const path = join(directory.path, 'app.db');
  const follower = openFollower(path);
  follower.apply(primary.capture());
  const reader = await Reader.start(path, 'long');
  let partial = 0;
  for (let i = 0; i < 300; i++) {
    expect(follower.apply(primary.step())).toBe('applied');
    const {frames, backfilled} = follower.checkpoint();
    if (backfilled < frames) partial++;
    if (i % 10 === 0) sleep(5);
  }
  const result = await reader.stop();
  expect(result.errors).toEqual([]);
  expect(partial).toBeGreaterThan(0);
  const {frames, backfilled} = follower.checkpoint();
  expect(backfilled).toBe(frames);
  follower.close();
  primary.close();
});

test('readers that overlap do not make the WAL grow without end', {timeout: 60_000}, async () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 16, ['journal_mode=WAL']);
  const path = join(directory.path, 'app.db');
  const follower = openFollower(path, {walSizeMax: 1_000_000});
  follower.apply(primary.capture());
  const readers = await Promise.all([1, 2, 3, 4].map(() => Reader.start(path, 'short')));
  const salts = new Set<number>();
  for (let i = 0; i < 600; i++) {
    applyPatiently(follower, primary.step());
    salts.add(follower.walPosition?.salt1 ?? 0);
  }
  for (const {errors} of await stopAll(readers)) expect(errors).toEqual([]);
  expect(salts.size).toBeGreaterThan(1);
  expectSameBytes(follower, primary.bytes);
  follower.close();
  primary.close();
});

/** Writes frames only after they have been published. */
class LateDisk extends Disk {
  readonly #late: (() => void)[] = [];

  override write(name: string, fd: number, bytes: Uint8Array, position: number): void {
    const copy = bytes.slice();
    const write = () => super.write(name, fd, copy, position);
    if (name === 'follower-wal:append') this.#late.push(write);
    else write();
  }

  catchUp(): void {
    for (const write of this.#late.splice(0)) write();
  }
}

test('canary: readers notice a header that is published before its frames', {timeout: 60_000}, async () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 14, ['journal_mode=WAL']);
  const path = join(directory.path, 'app.db');
  const disk = new LateDisk();
  const follower = openFollower(path, {disk});
  follower.apply(primary.capture());
  const readers = await Promise.all([Reader.start(path, 'short', 5), Reader.start(path, 'python')]);
  for (let i = 0; i < 100; i++) {
    follower.apply(primary.step());
    sleep(2);
    disk.catchUp();
  }
  const results = await stopAll(readers);
  expect(results.flatMap(result => result.errors).length).toBeGreaterThan(0);
  follower.close();
  primary.close();
});

test('canary: readers notice pages that are written without the lock', {timeout: 60_000}, async () => {
  using directory = makeDirectory();
  const primary = new Primary(join(directory.path, 'primary.db'), 15, ['journal_mode=DELETE']);
  const path = join(directory.path, 'app.db');
  const follower = openFollower(path);
  follower.apply(primary.capture());
  const readers = await Promise.all([Reader.start(path, 'short', 5), Reader.start(path, 'python')]);
  const fd = openSync(path, 'r+');
  for (let i = 0; i < 60; i++) {
    const {pages, pageSize} = primary.step();
    for (const {pgno, page} of pages()) {
      writeSync(fd, page, 0, pageSize, (pgno - 1) * pageSize);
      sleep(1);
    }
  }
  const results = await stopAll(readers);
  expect(results.flatMap(result => result.errors).length).toBeGreaterThan(0);
  follower.close();
  primary.close();
});
