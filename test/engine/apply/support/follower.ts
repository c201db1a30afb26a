import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {expect} from 'vitest';
import {
  FollowerDatabase,
  type FollowerDatabaseOptions,
} from '../../../../src/engine/apply/follower-database.ts';
import type {PageTransaction} from '../../../../src/engine/apply/page-transaction.ts';
import {Disk} from '../../../../src/lib/disk.ts';
import {LockBytes} from '../../../../src/sqlite/lock-bytes.ts';
import {seededRandom} from './primary.ts';

export function makeDirectory(): {path: string; [Symbol.dispose](): void} {
  const path = mkdtempSync(join(tmpdir(), 'ferrite-apply-'));
  return {path, [Symbol.dispose]: () => rmSync(path, {recursive: true, force: true})};
}

export function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Options for plain files: no mount, so there is no cache to tell anything. */
export function followerOptions(
  path: string,
  changes: Partial<FollowerDatabaseOptions> = {},
): FollowerDatabaseOptions {
  return {
    disk: new Disk(),
    backing: path,
    mounted: path,
    cache: {store: () => {}, invalidate: () => {}},
    lockBytes: new LockBytes(),
    sync: 'off',
    randomU32: seededRandom(7),
    nowMs: () => performance.now(),
    sleep,
    ...changes,
  };
}

export function openFollower(path: string, changes: Partial<FollowerDatabaseOptions> = {}): FollowerDatabase {
  return FollowerDatabase.open(followerOptions(path, changes));
}

/** The whole database as readers see it. */
export function effectiveBytes(follower: FollowerDatabase): Uint8Array {
  const {pageSize, pageCount} = follower;
  const bytes = new Uint8Array(pageSize * pageCount);
  for (let i = 0; i < pageCount; i++) {
    follower.readPage(i + 1, bytes.subarray(i * pageSize, (i + 1) * pageSize));
  }
  return bytes;
}

export function expectSameBytes(follower: FollowerDatabase, bytes: Uint8Array): void {
  const effective = effectiveBytes(follower);
  expect(effective.length).toBe(bytes.length);
  expect(Buffer.compare(effective, bytes)).toBe(0);
}

/**
 * Applies, trying again while readers are in the way, for at most ten seconds. Returns how often it was busy.
 */
export function applyPatiently(follower: FollowerDatabase, transaction: PageTransaction): number {
  for (let attempt = 0; attempt < 10_000; attempt++) {
    if (follower.apply(transaction) === 'applied') return attempt;
    sleep(1);
  }
  throw new Error('readers kept the follower out for ten seconds');
}
