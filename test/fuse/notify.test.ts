import {afterEach, beforeEach, expect, test} from 'vitest';
import {KernelNotifier} from '../../src/fuse/notify.ts';
import {OUT_HEADER, readStruct, Written} from './struct-layout.ts';

const NODEID = 0x7_1234_5678_9abc;
let written: Written;
let notifier: KernelNotifier;
beforeEach(() => {
  written = new Written();
  notifier = new KernelNotifier(written.fd);
});
afterEach(() => written.close());

/** Checks the header, struct fuse_out_header with the code in `error` and no `unique`, and returns the bodies. */
function bodies(code: bigint): Buffer[] {
  return written.take().map(message => {
    expect(readStruct(message, OUT_HEADER)).toEqual({len: BigInt(message.length), error: code, unique: 0n});
    return message.subarray(16);
  });
}

test('store() is struct fuse_notify_store_out and the bytes', () => {
  notifier.store(NODEID, 2 ** 40 + 32, Buffer.from('frame'));
  const [body = Buffer.alloc(0)] = bodies(4n);
  const layout = [
    ['nodeid', 'u64'],
    ['offset', 'u64'],
    ['size', 'u32'],
    ['padding', 'u32'],
  ] as const;
  expect(readStruct(body, layout)).toEqual({
    nodeid: BigInt(NODEID),
    offset: 2n ** 40n + 32n,
    size: 5n,
    padding: 0n,
  });
  expect(body.subarray(24).toString()).toBe('frame');
});

test('store() cuts up what is longer than a megabyte, and loses nothing', () => {
  const bytes = Buffer.alloc(2.5 * 1024 * 1024).map((_, i) => i * 7);
  notifier.store(NODEID, 100, bytes);
  const found = bodies(4n);
  expect(found.map(body => [Number(body.readBigUInt64LE(8)), body.readUInt32LE(16)])).toEqual([
    [100, 1 << 20],
    [100 + (1 << 20), 1 << 20],
    [100 + (2 << 20), 1 << 19],
  ]);
  expect(Buffer.concat(found.map(body => body.subarray(24))).equals(bytes)).toBe(true);
});

test('invalidateInode() is struct fuse_notify_inval_inode_out', () => {
  notifier.invalidateInode(NODEID, 4096, 8192);
  notifier.invalidateInode(NODEID);
  const found = bodies(2n).map(body =>
    readStruct(body, [
      ['ino', 'u64'],
      ['off', 'i64'],
      ['len', 'i64'],
    ]),
  );
  expect(found).toEqual([
    {ino: BigInt(NODEID), off: 4096n, len: 8192n},
    {ino: BigInt(NODEID), off: 0n, len: 0n},
  ]);
});

test('invalidateEntry() and deleted() count the name in bytes and end it with NUL', () => {
  notifier.store(1, 0, Buffer.alloc(600, 0xff)); // The buffer is used again: nothing of this may show.
  written.take();
  notifier.invalidateEntry(NODEID, 'größe.db-wal');
  const [entry = Buffer.alloc(0)] = bodies(3n);
  expect(
    readStruct(entry, [
      ['parent', 'u64'],
      ['namelen', 'u32'],
      ['flags', 'u32'],
    ]),
  ).toEqual({parent: BigInt(NODEID), namelen: 14n, flags: 0n});
  expect(entry.subarray(16).toString()).toBe('größe.db-wal\0');
  notifier.deleted(NODEID, 77, 'a');
  const [deleted = Buffer.alloc(0)] = bodies(6n);
  expect(
    readStruct(deleted, [
      ['parent', 'u64'],
      ['child', 'u64'],
      ['namelen', 'u32'],
      ['padding', 'u32'],
    ]),
  ).toEqual({parent: BigInt(NODEID), child: 77n, namelen: 1n, padding: 0n});
  expect(deleted.subarray(24).toString()).toBe('a\0');
});

test('resend() has no body', () => {
  notifier.resend();
  expect(bodies(7n)).toEqual([Buffer.alloc(0)]);
});
