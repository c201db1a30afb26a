import {expect, test} from 'vitest';
import {
  LockBytes,
  UNIX_SHM_DMS,
  WAL_CKPT_LOCK,
  WAL_READ_LOCK,
  WAL_RECOVER_LOCK,
  WAL_WRITE_LOCK,
} from '../../src/sqlite/lock-bytes.ts';

test('LockBytes is where SQLite has it', () => {
  const lockBytes = new LockBytes();
  expect(lockBytes.pendingByte).toBe(0x40000000);
  expect(lockBytes.reservedByte).toBe(0x40000001);
  expect(lockBytes.sharedFirst).toBe(0x40000002);
  expect(lockBytes.sharedSize).toBe(510);
});

test('lockPgno() is the page of the pending byte', () => {
  expect(new LockBytes().lockPgno(512)).toBe(2_097_153);
  expect(new LockBytes().lockPgno(4096)).toBe(262_145);
  expect(new LockBytes().lockPgno(65_536)).toBe(16_385);
  expect(new LockBytes(0x10000).lockPgno(4096)).toBe(17);
  expect(new LockBytes(0x10000 - 1).lockPgno(4096)).toBe(16);
});

test('the lock bytes of the -shm file', () => {
  expect([WAL_WRITE_LOCK, WAL_CKPT_LOCK, WAL_RECOVER_LOCK]).toEqual([120, 121, 122]);
  expect([0, 1, 2, 3, 4].map(WAL_READ_LOCK)).toEqual([123, 124, 125, 126, 127]);
  expect(() => WAL_READ_LOCK(5)).toThrow('five read locks');
  expect(UNIX_SHM_DMS).toBe(128);
});
