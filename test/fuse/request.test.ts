import {expect, test} from 'vitest';
import {answerInit, FuseInitError, MAX_WRITE} from '../../src/fuse/init.ts';
import {FuseRequest} from '../../src/fuse/request.ts';
import {readStruct} from './struct-layout.ts';

function requestOf(body: Buffer, unique = 5n): FuseRequest {
  const request = new FuseRequest();
  request.buffer.fill(0xee);
  const header = Buffer.alloc(40);
  header.writeUInt32LE(40 + body.length, 0);
  header.writeUInt32LE(16, 4);
  header.writeBigUInt64LE(unique, 8);
  header.writeBigUInt64LE(0x7_0000_0001_0002n, 16);
  header.writeUInt32LE(1001, 24);
  header.writeUInt32LE(1002, 28);
  header.writeUInt32LE(1003, 32);
  Buffer.concat([header, body]).copy(request.buffer);
  request.length = 40 + body.length;
  return request;
}

test('struct fuse_in_header', () => {
  const request = requestOf(Buffer.alloc(0), 0x8000_0001_0000_0002n);
  expect([request.opcode, request.nodeid, request.uid, request.gid, request.pid]).toEqual([
    16, 0x7_0000_0001_0002, 1001, 1002, 1003,
  ]);
  expect([request.id, request.isResent]).toEqual([{low: 2, high: 0x8000_0001}, true]);
  expect(requestOf(Buffer.alloc(0), 0x7fff_ffff_ffff_ffffn).isResent).toBe(false);
});

test('fields of the body', () => {
  const body = Buffer.alloc(24);
  body.writeUInt32LE(0xffff_ffff, 0);
  body.writeBigUInt64LE(2n ** 53n - 1n, 8);
  body.writeBigInt64LE(-3n, 16);
  const request = requestOf(body);
  expect([request.u32(0), request.u64(8), request.i64(16), request.payload(16).length]).toEqual([
    0xffff_ffff,
    2 ** 53 - 1,
    -3n,
    8,
  ]);
});

test('names() stops at the end of the request, whatever the buffer held before', () => {
  const text = (names: Buffer[]) => names.map(String);
  expect(text(requestOf(Buffer.from('old\0new\0')).names(0, 2))).toEqual(['old', 'new']);
  expect(text(requestOf(Buffer.from('old\0new\0')).names(0, 1))).toEqual(['old']);
  expect(text(requestOf(Buffer.from('old\0ne')).names(0, 2))).toEqual(['old']);
  expect(text(requestOf(Buffer.from('')).names(0, 1))).toEqual([]);
  expect(text(requestOf(Buffer.from('\0')).names(0, 1))).toEqual(['']);
});

const FUSE_INIT_EXT = 1 << 30;

function initOf({
  major = 7,
  minor = 45,
  flags = 0xffff_ffff,
  flags2 = 0xffff_ffff,
  opcode = 26,
} = {}): Buffer {
  const bytes = Buffer.alloc(40 + 64);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeBigUInt64LE(2n, 8);
  for (const [index, value] of [major, minor, 131_072, flags, flags2].entries())
    bytes.writeUInt32LE(value, 40 + 4 * index);
  return bytes;
}

const INIT_OUT = [
  ['major', 'u32'],
  ['minor', 'u32'],
  ['max_readahead', 'u32'],
  ['flags', 'u32'],
  ['max_background', 'u16'],
  ['congestion_threshold', 'u16'],
  ['max_write', 'u32'],
  ['time_gran', 'u32'],
  ['max_pages', 'u16'],
  ['map_alignment', 'u16'],
  ['flags2', 'u32'],
] as const;

test('answerInit() takes what it wants of what is offered', () => {
  const {reply, hasResend, minor} = answerInit(initOf());
  const bytes = Buffer.from(reply);
  expect([bytes.length, bytes.readUInt32LE(0), bytes.readInt32LE(4), bytes.readBigUInt64LE(8)]).toEqual([
    80,
    80,
    0,
    2n,
  ]);
  const found = readStruct(bytes, INIT_OUT, 16);
  expect(found).toMatchObject({
    major: 7n,
    max_readahead: 131_072n,
    max_write: BigInt(MAX_WRITE),
    time_gran: 1n,
    max_pages: BigInt(MAX_WRITE / 4096),
    flags2: 0x80n,
  });
  expect([hasResend, minor]).toEqual([true, 45]);
  const {flags = 0n} = found;
  const bit = (n: bigint) => (flags >> n) & 1n;
  // ASYNC_READ, BIG_WRITES, PARALLEL_DIROPS, MAX_PAGES, EXPLICIT_INVAL_DATA, INIT_EXT; not POSIX_LOCKS, FLOCK_LOCKS, AUTO_INVAL_DATA, WRITEBACK_CACHE.
  expect([0n, 5n, 18n, 22n, 25n, 30n].map(bit)).toEqual([1n, 1n, 1n, 1n, 1n, 1n]);
  expect([1n, 10n, 12n, 16n].map(bit)).toEqual([0n, 0n, 0n, 0n]);
});

test('answerInit() asks for nothing that was not offered, and for no resend before Linux 6.9', () => {
  const old = answerInit(initOf({minor: 31, flags: 1}));
  expect(readStruct(Buffer.from(old.reply), INIT_OUT, 16)).toMatchObject({minor: 31n, flags: 1n, flags2: 0n});
  expect(old.hasResend).toBe(false);
  expect(answerInit(initOf({flags: FUSE_INIT_EXT, flags2: 0})).hasResend).toBe(false);
  expect(answerInit(initOf({flags: (0xffff_ffff & ~FUSE_INIT_EXT) >>> 0})).hasResend).toBe(false);
});

test.each([
  [{minor: 30}, 'FUSE_TOO_OLD'],
  [{major: 6}, 'FUSE_TOO_OLD'],
  [{major: 8}, 'FUSE_TOO_OLD'],
  [{opcode: 1}, 'FUSE_INIT_EXPECTED'],
])('answerInit() refuses %j', (init, code) => {
  expect(() => answerInit(initOf(init))).toThrow(expect.objectContaining({code}));
});

test('answerInit() refuses a request that is cut short', () => {
  for (let size = 0; size < 56; size++)
    expect(() => answerInit(initOf().subarray(0, size))).toThrow(FuseInitError);
});
