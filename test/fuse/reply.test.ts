import {afterEach, beforeEach, expect, test} from 'vitest';
import {type FuseAttributes, FuseReplies, ignoreGone, VALID_SECONDS} from '../../src/fuse/reply.ts';
import {
  ATTR,
  ATTR_OUT,
  ENTRY_OUT,
  OPEN_OUT,
  OUT_HEADER,
  readStruct,
  sizeOf,
  Written,
} from './struct-layout.ts';

const id = {low: 0x9abcdef0, high: 0x92345678};
const unique = 0x923456789abcdef0n;
const attributes: FuseAttributes = {
  nodeid: 0x7_1234_5678_9abc,
  size: 2 ** 52 + 1,
  blocks: 2 ** 40,
  atimeNs: 1_700_000_000_999_999_999n,
  mtimeNs: -1n,
  ctimeNs: -1_500_000_000n,
  mode: 0o100644,
  nlink: 3,
  uid: 0xffff_fffe,
  gid: 12,
  rdev: 0x801,
  blksize: 4096,
};
const attr = {
  ino: 0x7_1234_5678_9abcn,
  size: 2n ** 52n + 1n,
  blocks: 2n ** 40n,
  atime: 1_700_000_000n,
  mtime: -1n,
  ctime: -2n,
  atimensec: 999_999_999n,
  mtimensec: 999_999_999n,
  ctimensec: 500_000_000n,
  mode: 0o100644n,
  nlink: 3n,
  uid: 0xffff_fffen,
  gid: 12n,
  rdev: 0x801n,
  blksize: 4096n,
  flags: 0n,
};
const entry = {
  ...attr,
  nodeid: attr.ino,
  generation: 0n,
  entry_valid: BigInt(VALID_SECONDS),
  attr_valid: BigInt(VALID_SECONDS),
  entry_valid_nsec: 0n,
  attr_valid_nsec: 0n,
};

let written: Written;
let replies: FuseReplies;
beforeEach(() => {
  written = new Written();
  replies = new FuseReplies(written.fd);
  replies.dataBuffer.fill(0xee); // What an answer leaves out shows.
});
afterEach(() => written.close());

function only(): Buffer {
  const [message, ...others] = written.take();
  expect(others).toEqual([]);
  return message ?? Buffer.alloc(0);
}

function header(message: Buffer): Record<string, bigint> {
  return readStruct(message, OUT_HEADER);
}

test("the sizes of the structs are the kernel's", () => {
  expect([OUT_HEADER, ATTR, ENTRY_OUT, ATTR_OUT, OPEN_OUT].map(sizeOf)).toEqual([16, 88, 128, 104, 16]);
});

test('error() negates the errno', () => {
  replies.error(id, 28);
  replies.error(id, 0);
  const messages = written.take();
  expect(messages.map(header)).toEqual([
    {len: 16n, error: -28n, unique},
    {len: 16n, error: 0n, unique},
  ]);
});

test('entry() is struct fuse_entry_out', () => {
  replies.entry(id, attributes);
  const message = only();
  expect(header(message)).toEqual({len: 144n, error: 0n, unique});
  expect(readStruct(message, ENTRY_OUT, 16)).toEqual(entry);
});

test('entry() of a virtual file is valid for no time', () => {
  replies.entry(id, attributes, 0);
  expect(readStruct(only(), ENTRY_OUT, 16)).toEqual({...entry, entry_valid: 0n, attr_valid: 0n});
});

test('negativeEntry() is node ID 0, to be remembered', () => {
  replies.negativeEntry(id);
  const message = only();
  const zeros = Object.fromEntries(ENTRY_OUT.map(([name]) => [name, 0n]));
  expect(readStruct(message, ENTRY_OUT, 16)).toEqual({...zeros, entry_valid: BigInt(VALID_SECONDS)});
});

test('attributes() is struct fuse_attr_out', () => {
  replies.attributes(id, attributes);
  const message = only();
  expect(header(message).len).toBe(120n);
  expect(readStruct(message, ATTR_OUT, 16)).toEqual({
    ...attr,
    attr_valid: BigInt(VALID_SECONDS),
    attr_valid_nsec: 0n,
    dummy: 0n,
  });
});

test('created() is an entry and struct fuse_open_out, whose handle carries nothing', () => {
  replies.created(id, attributes, 2);
  const message = only();
  expect(header(message).len).toBe(160n);
  expect(readStruct(message, ENTRY_OUT, 16)).toEqual(entry);
  expect(readStruct(message, OPEN_OUT, 144)).toEqual({fh: 0n, open_flags: 2n, backing_id: 0n});
});

test('opened(), written() and data()', () => {
  replies.opened(id, 1);
  replies.written(id, 4120);
  replies.dataBuffer.write('page');
  replies.data(id, 4);
  const [opened = Buffer.alloc(0), wrote = Buffer.alloc(0), data = Buffer.alloc(0)] = written.take();
  expect(readStruct(opened, OPEN_OUT, 16)).toEqual({fh: 0n, open_flags: 1n, backing_id: 0n});
  expect([wrote.length, wrote.readUInt32LE(16), wrote.readUInt32LE(20)]).toEqual([24, 4120, 0]);
  expect(data.subarray(16).toString()).toBe('page');
});

test('statfs() is struct fuse_kstatfs', () => {
  replies.statfs(id, {type: 0, bsize: 4096, blocks: 2 ** 33, bfree: 5, bavail: 4, files: 7, ffree: 6});
  const message = only();
  expect(message.length).toBe(16 + 80);
  const layout = [
    ['blocks', 'u64'],
    ['bfree', 'u64'],
    ['bavail', 'u64'],
    ['files', 'u64'],
    ['ffree', 'u64'],
    ['bsize', 'u32'],
    ['namelen', 'u32'],
    ['frsize', 'u32'],
    ['padding', 'u32'],
  ] as const;
  expect(readStruct(message, layout, 16)).toEqual({
    blocks: 2n ** 33n,
    bfree: 5n,
    bavail: 4n,
    files: 7n,
    ffree: 6n,
    bsize: 4096n,
    namelen: 255n,
    frsize: 4096n,
    padding: 0n,
  });
  expect(message.subarray(16 + 56).every(byte => byte === 0)).toBe(true);
});

test('ignoreGone() lets pass only that the request or the connection is gone', () => {
  for (const code of ['ENOENT', 'ENODEV', 'ECONNABORTED'])
    expect(() => ignoreGone(Object.assign(new Error(), {code}))).not.toThrow();
  for (const code of ['EINVAL', 'EBADF', undefined])
    expect(() => ignoreGone(Object.assign(new Error(), {code}))).toThrow();
});
