import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, expect, test} from 'vitest';
import {
  createPoller,
  eventfd,
  mmapShared,
  ofdLock,
  ofdLockConflict,
  ofdLockWait,
  systemPageSize,
} from '../../src/lib/libc.ts';

let directory = '';
let fds: number[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ferrite-libc-'));
});

afterEach(() => {
  for (const fd of fds) closeSync(fd);
  fds = [];
  rmSync(directory, {recursive: true});
});

function open(name: string): number {
  const fd = openSync(join(directory, name), 'a+');
  fds.push(fd);
  return fd;
}

test('ofdLock() of two descriptors conflicts as SQLite expects, converts, and unlocks', () => {
  const a = open('locks');
  const b = open('locks');
  expect(ofdLock(a, 'read', 0x40000002, 510)).toBe(true);
  expect(ofdLock(b, 'read', 0x40000002, 510)).toBe(true);
  expect(ofdLock(a, 'write', 0x40000002, 510)).toBe(false);
  expect(ofdLock(b, 'unlock', 0x40000002, 510)).toBe(true);
  expect(ofdLock(a, 'write', 0x40000002, 510)).toBe(true);
  expect(ofdLock(b, 'read', 0x40000003, 1)).toBe(false);
  expect(ofdLockConflict(b, 'read', 0x40000003, 1)).toEqual({
    type: 'write',
    start: 0x40000002,
    length: 510,
    pid: -1,
  });
  ofdLock(a, 'read', 0x40000002, 510);
  expect(ofdLockConflict(b, 'read', 0x40000003, 1)).toBeUndefined();
  ofdLockWait(b, 'read', 0x40000003, 1);
});

test('ofdLock() past 4 GiB keeps all bits of the offset', () => {
  const a = open('locks');
  const b = open('locks');
  expect(ofdLock(a, 'write', 2 ** 40, 1)).toBe(true);
  expect(ofdLock(b, 'write', 0, 2 ** 40)).toBe(true);
  expect(ofdLock(b, 'write', 2 ** 40, 1)).toBe(false);
});

test('a lock that ends with its descriptor frees the bytes', () => {
  const b = open('locks');
  const a = openSync(join(directory, 'locks'), 'r+');
  expect(ofdLock(a, 'write', 120, 1)).toBe(true);
  expect(ofdLock(b, 'write', 120, 1)).toBe(false);
  closeSync(a);
  expect(ofdLock(b, 'write', 120, 1)).toBe(true);
});

test('ofdLock() on a bad descriptor throws the errno', () => {
  expect(() => ofdLock(1_000_000, 'read', 0, 1)).toThrow(expect.objectContaining({code: 'EBADF'}));
});

test('createPoller() tells which descriptors are readable', () => {
  const first = eventfd();
  const second = eventfd();
  fds.push(first, second);
  const poller = createPoller([first, second]);
  const one = new BigUint64Array([1n]);
  expect(poller.wait(0)).toBe(0);
  expect(poller.wait(5)).toBe(0);
  writeSync(second, one);
  expect(poller.wait(-1)).toBe(0b10);
  writeSync(first, one);
  writeSync(first, one);
  expect(poller.wait(-1)).toBe(0b11);
  expect(readSync(first, one)).toBe(8);
  expect(one[0]).toBe(2n);
  expect(poller.wait(0)).toBe(0b10);
  expect(() => readSync(first, one)).toThrow(expect.objectContaining({code: 'EAGAIN'}));
});

test('createPoller() refuses no descriptors and too many', () => {
  expect(() => createPoller([])).toThrow(expect.objectContaining({code: 'EINVAL'}));
  expect(() => createPoller(Array.from({length: 31}, () => 0))).toThrow(
    expect.objectContaining({code: 'EINVAL'}),
  );
});

test('mmapShared() shares bytes with the file, at offsets, again and again', () => {
  const fd = open('mapped');
  ftruncateSync(fd, 4 * 65536);
  expect(65536 % systemPageSize()).toBe(0);
  for (let i = 0; i < 400; i++) {
    const mapping = mmapShared(fd, (i % 4) * 65536, 65536);
    Atomics.store(new Int32Array(mapping.buffer), 1, i);
    mapping.unmap();
  }
  const words = new Int32Array(new Uint8Array(readFileSync(join(directory, 'mapped'))).buffer);
  expect([0, 1, 2, 3].map(i => words[i * 16384 + 1])).toEqual([396, 397, 398, 399]);
});

test('mmapShared() of a bad descriptor throws the errno', () => {
  expect(() => mmapShared(1_000_000, 0, 65536)).toThrow(expect.objectContaining({code: 'EBADF'}));
});
