import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import fc from 'fast-check';
import {expect, test} from 'vitest';
import {
  decodeWalFrameHeader,
  decodeWalHeader,
  encodeWalFrame,
  encodeWalHeader,
  frameCount,
  frameOffset,
  verifyWalFrame,
  walChecksum,
} from '../../src/sqlite/wal.ts';
import {codeOf, flipBit, PAGE_SIZES, withDatabase, withFolder} from './support.ts';

const u32 = fc.nat(0xffffffff);

/** The slow, plain way: BigInt words, no tricks. */
function referenceChecksum(
  bytes: Uint8Array,
  seed: readonly [number, number],
  bigEndian: boolean,
): [number, number] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let [s1, s2] = seed.map(BigInt);
  for (let i = 0; i < bytes.length; i += 8) {
    s1 = (s1 + BigInt(view.getUint32(i, !bigEndian)) + s2) & 0xffffffffn;
    s2 = (s2 + BigInt(view.getUint32(i + 4, !bigEndian)) + s1) & 0xffffffffn;
  }
  return [Number(s1), Number(s2)];
}

/** A WAL that SQLite wrote: several transactions, some rolled back, cache spills. */
function makeWal(pageSize: number): {wal: Uint8Array; pageCount: unknown} {
  return withFolder(folder => {
    const path = join(folder, 'a.db');
    return withDatabase(path, database => {
      database.pragma(`page_size = ${pageSize}`);
      database.pragma('journal_mode = WAL');
      database.pragma('wal_autocheckpoint = 0');
      database.pragma('cache_size = 6');
      database.exec('CREATE TABLE t(id INTEGER PRIMARY KEY, x)');
      const insert = database.prepare(
        `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 12)
         INSERT INTO t(x) SELECT randomblob(${Math.min(pageSize, 8192)}) FROM n`,
      );
      for (let i = 0; i < 4; i++) {
        database.exec('BEGIN');
        insert.run();
        database.exec(i === 2 ? 'ROLLBACK' : 'COMMIT');
        database.exec('UPDATE t SET x = 1 WHERE id % 5 = 0');
      }
      return {
        wal: new Uint8Array(readFileSync(`${path}-wal`)),
        pageCount: database.pragma('page_count', {simple: true}),
      };
    });
  });
}

test('walChecksum() reproduces the golden headers', () => {
  const running = new Uint32Array(2);
  walChecksum(Buffer.from('377f0682002de21800001000000000004875a40ba38de4f5', 'hex'), 0, 24, running, false);
  expect([...running]).toEqual([0xe08b785b, 0x8e57dda3]);
  running.fill(0);
  walChecksum(Buffer.from('377f06830000000100000000000000000000000000000000', 'hex'), 0, 24, running, true);
  expect([...running]).toEqual([0x157b2092, 0xbbf8341d]);
});

test('walChecksum() agrees with the plain sum for any alignment, size, seed and order', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({minLength: 8, maxLength: 600}),
      fc.nat(7),
      fc.tuple(u32, u32),
      fc.boolean(),
      (content, shift, seed, bigEndian) => {
        const size = content.length & ~7;
        const bytes = new Uint8Array(shift + content.length);
        bytes.set(content, shift);
        const running = Uint32Array.from(seed);
        walChecksum(bytes, shift, shift + size, running, bigEndian);
        expect([...running]).toEqual(referenceChecksum(content.slice(0, size), seed, bigEndian));
      },
    ),
  );
});

test('walChecksum() takes the fast way where the view itself is not aligned', () => {
  const bytes = Uint8Array.from({length: 8 + 4096}, (_, i) => (i * 31) & 0xff);
  for (const shift of [0, 1, 2, 3, 4]) {
    const running = new Uint32Array(2);
    walChecksum(bytes.subarray(shift), 4, 4 + 4000, running, false);
    expect([...running]).toEqual(referenceChecksum(bytes.slice(shift + 4, shift + 4004), [0, 0], false));
  }
});

for (const pageSize of PAGE_SIZES) {
  test(`verifyWalFrame() and encodeWalFrame() reproduce SQLite's frames at page size ${pageSize}`, () => {
    const {wal, pageCount} = makeWal(pageSize);
    const header = decodeWalHeader(wal);
    expect(header.pageSize).toBe(pageSize);
    expect(header.bigEndCksum).toBe(false);
    const copy = new Uint8Array(wal.length);
    const written = new Uint32Array(2);
    encodeWalHeader(copy, 0, header, written);
    expect([...written]).toEqual([header.checksum1, header.checksum2]);
    const running = Uint32Array.of(header.checksum1, header.checksum2);

    const count = frameCount(wal.length, pageSize);
    let valid = 0;
    let commit = 0;
    for (; valid < count; valid++) {
      const at = frameOffset(valid, pageSize);
      if (!verifyWalFrame(wal, at, header, running)) break;
      const frame = decodeWalFrameHeader(wal, at);
      const page = wal.subarray(at + 24, at + 24 + pageSize);
      expect(encodeWalFrame(copy, at, {...frame, page}, written)).toBe(24 + pageSize);
      expect([frame.checksum1, frame.checksum2]).toEqual([...running]);
      if (frame.commit !== 0) commit = frame.commit;
    }
    expect(valid).toBeGreaterThan(20);
    expect(commit).toBe(pageCount);
    const size = frameOffset(valid, pageSize);
    expect(Buffer.compare(copy.subarray(0, size), wal.subarray(0, size))).toBe(0);
  });
}

test('encodeWalFrame() and encodeWalHeader() round trip, in both word orders', () => {
  const pageSizes = fc.constantFrom(512, 1024, 4096);
  fc.assert(
    fc.property(pageSizes, fc.boolean(), fc.tuple(u32, u32, u32), fc.nat(5), u32, (...input) => {
      const [pageSize, bigEndCksum, [nCkpt, salt1, salt2], at, commit] = input;
      const target = new Uint8Array(at + 32 + 2 * (24 + pageSize));
      const running = new Uint32Array(2);
      const header = {bigEndCksum, pageSize, nCkpt, salt1, salt2};
      encodeWalHeader(target, at, header, running);
      const page = Uint8Array.from({length: pageSize}, (_, i) => (i * commit) & 0xff);
      for (const index of [0, 1]) {
        const frame = {pgno: index + 1, commit: commit * index, salt1, salt2, page};
        encodeWalFrame(target, at + frameOffset(index, pageSize), frame, running, bigEndCksum);
      }
      const bytes = target.slice(at);
      const decoded = decodeWalHeader(bytes);
      expect(decoded).toMatchObject(header);
      const check = Uint32Array.of(decoded.checksum1, decoded.checksum2);
      for (const index of [0, 1]) {
        expect(verifyWalFrame(bytes, frameOffset(index, pageSize), decoded, check)).toBe(true);
        expect(decodeWalFrameHeader(bytes, frameOffset(index, pageSize)).commit).toBe(commit * index);
      }
      expect(frameCount(bytes.length, pageSize)).toBe(2);
    }),
    {numRuns: 50},
  );
});

test('decodeWalHeader() refuses every truncation and every flipped bit', () => {
  const bytes = makeWal(1024).wal.slice(0, 32);
  for (let size = 0; size < 32; size++) {
    expect(codeOf(() => decodeWalHeader(bytes.subarray(0, size)))).toBe('WAL_TRUNCATED');
  }
  for (let bit = 0; bit < 256; bit++) {
    const expected =
      bit >> 3 < 4 ? /^WAL_BAD_(MAGIC|CHECKSUM)$/ : bit >> 3 < 8 ? /CHECKSUM/ : /CHECKSUM|PAGE_SIZE/;
    expect(codeOf(() => decodeWalHeader(flipBit(bytes, bit)))).toMatch(expected);
  }
});

test('decodeWalHeader() refuses another version only when the checksum is right', () => {
  const bytes = makeWal(1024).wal.slice(0, 32);
  bytes[7] += 1;
  const running = new Uint32Array(2);
  walChecksum(bytes, 0, 24, running, false);
  const view = new DataView(bytes.buffer);
  view.setUint32(24, running[0]);
  view.setUint32(28, running[1]);
  expect(codeOf(() => decodeWalHeader(bytes))).toBe('WAL_BAD_VERSION');
});

test('verifyWalFrame() refuses every flipped bit and every truncation, and does not move then', () => {
  const header = {bigEndCksum: false, pageSize: 512, nCkpt: 0, salt1: 1, salt2: 2};
  const bytes = new Uint8Array(32 + 536);
  const start = new Uint32Array(2);
  encodeWalHeader(bytes, 0, header, start);
  const page = Uint8Array.from({length: 512}, (_, i) => i & 0xff);
  encodeWalFrame(bytes, 32, {pgno: 3, commit: 4, salt1: 1, salt2: 2, page}, Uint32Array.from(start));
  const running = Uint32Array.from(start);
  for (let bit = 32 * 8; bit < bytes.length * 8; bit++) {
    expect(verifyWalFrame(flipBit(bytes, bit), 32, header, running)).toBe(false);
  }
  for (let size = 32; size < bytes.length; size++) {
    expect(verifyWalFrame(bytes.subarray(0, size), 32, header, running)).toBe(false);
  }
  expect([...running]).toEqual([...start]);
  expect(verifyWalFrame(bytes, 32, header, running)).toBe(true);
  expect([...running]).not.toEqual([...start]);
});

test('verifyWalFrame() takes zeros for no frame even if salts and checksum are zero', () => {
  const header = {bigEndCksum: false, pageSize: 512, nCkpt: 0, salt1: 0, salt2: 0};
  expect(verifyWalFrame(new Uint8Array(536), 0, header, new Uint32Array(2))).toBe(false);
});

test('decodeWalFrameHeader() rejects pgno 0 and truncation', () => {
  expect(codeOf(() => decodeWalFrameHeader(new Uint8Array(24)))).toBe('WAL_BAD_PGNO');
  expect(codeOf(() => decodeWalFrameHeader(new Uint8Array(23)))).toBe('WAL_TRUNCATED');
  expect(codeOf(() => decodeWalFrameHeader(new Uint8Array(40), 17))).toBe('WAL_TRUNCATED');
});

test('frameOffset() and frameCount() fit each other', () => {
  expect([0, 1, 2].map(index => frameOffset(index, 4096))).toEqual([32, 4152, 8272]);
  expect(frameCount(0, 512)).toBe(0);
  expect(frameCount(32, 512)).toBe(0);
  expect(frameCount(32 + 535, 512)).toBe(0);
  expect(frameCount(frameOffset(7, 512), 512)).toBe(7);
});
