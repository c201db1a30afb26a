import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import type Database from 'better-sqlite3';
import fc from 'fast-check';
import {expect, test} from 'vitest';
import {
  decodeWalFrameHeader,
  decodeWalHeader,
  frameCount,
  frameOffset,
  verifyWalFrame,
} from '../../src/sqlite/wal.ts';
import {
  decodeWalIndexHeader,
  encodeWalIndexHeader,
  HASHTABLE_NPAGE,
  HASHTABLE_NPAGE_ONE,
  HASHTABLE_NSLOT,
  READMARK_NOT_USED,
  readWalIndexHeader,
  WALINDEX_HDR_SIZE,
  WALINDEX_PGSZ,
  WalCkptInfo,
  type WalIndexHeader,
  WalIndexTable,
  walIndexSegmentOf,
  walIndexSizeFor,
  writeWalIndexHeader,
} from '../../src/sqlite/wal-index.ts';
import {codeOf, flipBit, PAGE_SIZES, withDatabase, withFolder} from './support.ts';

const HEADER: WalIndexHeader = {
  iChange: 7,
  bigEndCksum: false,
  pageSize: 65_536,
  mxFrame: 12,
  nPage: 9,
  frameChecksum1: 0xfedcba98,
  frameChecksum2: 0x12345678,
  salt1: 0xa0b0c0d0,
  salt2: 0x01020304,
};

/** A table over memory of our own, one array per segment, and those arrays. */
function newTable(): {table: WalIndexTable; segments: Uint8Array[]} {
  const segments: Uint8Array[] = [];
  const table = new WalIndexTable(iSegment => {
    segments[iSegment] ??= new Uint8Array(WALINDEX_PGSZ);
    return segments[iSegment];
  });
  return {table, segments};
}

/** A table over the bytes of a `-shm` file. */
function tableOf(shm: Uint8Array): WalIndexTable {
  const segments: Uint8Array[] = [];
  return new WalIndexTable(i => {
    segments[i] ??= shm.subarray(i * WALINDEX_PGSZ, (i + 1) * WALINDEX_PGSZ);
    return segments[i];
  });
}

/** What SQLite has beside a database whose connection is still open. */
function readFiles(path: string): {wal: Uint8Array; shm: Uint8Array} {
  return {
    wal: new Uint8Array(readFileSync(`${path}-wal`)),
    shm: new Uint8Array(readFileSync(`${path}-shm`)),
  };
}

/** Page numbers of the frames that SQLite has committed, and the state after the last of them. */
function scan(wal: Uint8Array, mxFrame: number) {
  const header = decodeWalHeader(wal);
  const running = Uint32Array.of(header.checksum1, header.checksum2);
  const pgnos: number[] = [];
  let commit = 0;
  for (let index = 0; index < mxFrame; index++) {
    const at = frameOffset(index, header.pageSize);
    expect(verifyWalFrame(wal, at, header, running)).toBe(true);
    const frame = decodeWalFrameHeader(wal, at);
    pgnos.push(frame.pgno);
    commit = frame.commit;
  }
  return {header, pgnos, commit, running};
}

function findLinearly(pgnos: readonly number[], pgno: number, mxFrame: number, minFrame: number): number {
  for (let frame = mxFrame; frame >= minFrame; frame--) if (pgnos[frame - 1] === pgno) return frame;
  return 0;
}

/** Compares SQLite's `-shm` with one that we build from its `-wal` alone. */
function expectSameIndex({wal, shm}: {wal: Uint8Array; shm: Uint8Array}): number {
  const theirs = decodeWalIndexHeader(shm);
  expect(readWalIndexHeader(shm.slice(0, WALINDEX_PGSZ))).toEqual(theirs);
  const {header, pgnos, commit, running} = scan(wal, theirs.mxFrame);
  const {table, segments} = newTable();
  pgnos.forEach((pgno, index) => {
    table.append(index + 1, pgno);
  });
  const [segment0] = segments;
  writeWalIndexHeader(segment0, {
    iChange: theirs.iChange,
    bigEndCksum: header.bigEndCksum,
    pageSize: header.pageSize,
    mxFrame: pgnos.length,
    nPage: commit,
    frameChecksum1: running[0],
    frameChecksum2: running[1],
    salt1: header.salt1,
    salt2: header.salt2,
  });
  expect(segments.length).toBe(walIndexSegmentOf(theirs.mxFrame) + 1);
  expect(shm.length).toBeGreaterThanOrEqual(walIndexSizeFor(theirs.mxFrame));
  segments.forEach((segment, i) => {
    const start = i * WALINDEX_PGSZ;
    if (i === 0) expect(Buffer.compare(segment.subarray(0, 96), shm.subarray(0, 96))).toBe(0);
    const skip = i === 0 ? WALINDEX_HDR_SIZE : 0;
    const ours = segment.subarray(skip);
    expect(Buffer.compare(ours, shm.subarray(start + skip, start + WALINDEX_PGSZ))).toBe(0);
  });
  expectSameFinds(tableOf(shm), pgnos, commit);
  return theirs.mxFrame;
}

function expectSameFinds(table: WalIndexTable, pgnos: readonly number[], pageCount: number): void {
  const count = pgnos.length;
  pgnos.forEach((pgno, index) => {
    if (index % 97 === 0) expect(table.pgnoOf(index + 1)).toBe(pgno);
  });
  const step = Math.ceil(pageCount / 60);
  for (let pgno = 1; pgno <= pageCount + 1; pgno += step) {
    for (const [mxFrame, minFrame] of [
      [count, 1],
      [count >> 1, 1],
      [count, count >> 1],
      [Math.min(count, HASHTABLE_NPAGE_ONE), 1],
      [1, 1],
    ]) {
      const expected = findLinearly(pgnos, pgno, mxFrame, minFrame);
      expect(table.find(pgno, mxFrame, minFrame)).toBe(expected);
    }
  }
}

function openWal(database: Database.Database, pageSize: number): void {
  database.pragma(`page_size = ${pageSize}`);
  database.pragma('journal_mode = WAL');
  database.pragma('wal_autocheckpoint = 0');
  database.exec('CREATE TABLE t(id INTEGER PRIMARY KEY, x)');
}

function insertRows(database: Database.Database, count: number, size: number): void {
  database
    .prepare(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
       INSERT INTO t(x) SELECT randomblob(?) FROM n`,
    )
    .run(count, size);
}

for (const pageSize of PAGE_SIZES) {
  test(`a wal-index built from the WAL is SQLite's at page size ${pageSize}`, () => {
    withFolder(folder => {
      const path = join(folder, 'a.db');
      withDatabase(path, database => {
        openWal(database, pageSize);
        for (let i = 0; i < 12; i++) {
          insertRows(database, 5, pageSize);
          database.exec('UPDATE t SET x = id WHERE id % 3 = 0');
        }
        expect(expectSameIndex(readFiles(path))).toBeGreaterThan(50);
      });
    });
  });
}

test("a wal-index of many segments, with spills and rollbacks, is SQLite's", () => {
  withFolder(folder => {
    const path = join(folder, 'a.db');
    withDatabase(path, database => {
      openWal(database, 512);
      database.pragma('cache_size = 10');
      insertRows(database, 3900, 400);
      database.exec('BEGIN');
      insertRows(database, 600, 400);
      // Uncommitted frames are in the WAL and in the index, beyond mxFrame and over a segment's border.
      const {wal, shm} = readFiles(path);
      const {mxFrame} = decodeWalIndexHeader(shm);
      expect(frameCount(wal.length, 512)).toBeGreaterThan(HASHTABLE_NPAGE_ONE);
      expect(mxFrame).toBeLessThan(HASHTABLE_NPAGE_ONE);
      const {pgnos, commit} = scan(wal, mxFrame);
      expectSameFinds(tableOf(shm), pgnos, commit);
      database.exec('ROLLBACK');
      expectSameIndex(readFiles(path));
      insertRows(database, 9000, 400);
      database.exec('BEGIN');
      insertRows(database, 10, 400);
      database.exec('SAVEPOINT a');
      insertRows(database, 500, 400);
      database.exec('ROLLBACK TO a');
      insertRows(database, 5, 400);
      database.exec('COMMIT');
      expect(walIndexSegmentOf(expectSameIndex(readFiles(path)))).toBeGreaterThanOrEqual(3);
    });
  });
});

test("a wal-index is SQLite's again after a checkpoint has restarted the WAL", () => {
  withFolder(folder => {
    const path = join(folder, 'a.db');
    withDatabase(path, database => {
      openWal(database, 1024);
      insertRows(database, 300, 1000);
      const before = decodeWalHeader(readFiles(path).wal);
      database.pragma('wal_checkpoint(RESTART)');
      insertRows(database, 20, 1000);
      const files = readFiles(path);
      const after = decodeWalHeader(files.wal);
      expect(after.nCkpt).toBe(before.nCkpt + 1);
      expect(after.salt1).toBe((before.salt1 + 1) >>> 0);
      expect(expectSameIndex(files)).toBeLessThan(100);
    });
  });
});

test("WalCkptInfo reads what SQLite's checkpoint left", () => {
  withFolder(folder => {
    const path = join(folder, 'a.db');
    withDatabase(path, database => {
      openWal(database, 1024);
      insertRows(database, 30, 1000);
      const reader = database.prepare('SELECT count(*) FROM t').pluck();
      reader.get();
      const before = new WalCkptInfo(readFiles(path).shm);
      expect(before.nBackfill).toBe(0);
      database.pragma('wal_checkpoint(PASSIVE)');
      const {shm} = readFiles(path);
      const info = new WalCkptInfo(shm);
      const {mxFrame} = decodeWalIndexHeader(shm);
      expect(info.nBackfill).toBe(mxFrame);
      expect(info.nBackfillAttempted).toBe(mxFrame);
      expect(info.readMark(0)).toBe(0);
      expect([1, 2, 3, 4].map(i => info.readMark(i))).toContain(READMARK_NOT_USED);
    });
  });
});

test('WalCkptInfo writes where the format says, and nowhere else', () => {
  const segment = new Uint8Array(WALINDEX_PGSZ);
  const info = new WalCkptInfo(segment);
  info.nBackfill = 0x01010101;
  info.nBackfillAttempted = 0x02020202;
  for (const i of [0, 1, 2, 3, 4]) info.setReadMark(i, 0x11111111 * (i + 3));
  const expected = '01'.repeat(4) + '33'.repeat(4) + '44'.repeat(4) + '55'.repeat(4);
  expect(Buffer.from(segment.subarray(96, 136)).toString('hex')).toBe(
    `${expected}${'66'.repeat(4)}${'77'.repeat(4)}${'00'.repeat(8)}${'02'.repeat(4)}00000000`,
  );
  expect(segment.subarray(0, 96).every(byte => byte === 0)).toBe(true);
  expect(segment.subarray(136).every(byte => byte === 0)).toBe(true);
  expect(info.readMark(4)).toBe(0x77777777);
  expect(() => info.readMark(5)).toThrow('five read marks');
});

test('decodeWalIndexHeader() reads what encodeWalIndexHeader() wrote', () => {
  const u32 = fc.nat(0xffffffff);
  const header = fc.record({
    iChange: u32,
    bigEndCksum: fc.boolean(),
    pageSize: fc.constantFrom(...PAGE_SIZES),
    mxFrame: u32,
    nPage: u32,
    frameChecksum1: u32,
    frameChecksum2: u32,
    salt1: u32,
    salt2: u32,
  });
  fc.assert(
    fc.property(header, fc.nat(3), (value, at) => {
      const bytes = new Uint8Array(64).subarray(at);
      encodeWalIndexHeader(bytes, value);
      expect(decodeWalIndexHeader(bytes)).toEqual(value);
    }),
  );
});

test('decodeWalIndexHeader() refuses truncations, flipped bits and what nobody initialised', () => {
  const bytes = new Uint8Array(48);
  encodeWalIndexHeader(bytes, HEADER);
  for (let size = 0; size < 48; size++) {
    expect(codeOf(() => decodeWalIndexHeader(bytes.subarray(0, size)))).toBe('WAL_INDEX_TRUNCATED');
  }
  for (let bit = 0; bit < 48 * 8; bit++) {
    expect(codeOf(() => decodeWalIndexHeader(flipBit(bytes, bit)))).toBe('WAL_INDEX_BAD_CHECKSUM');
  }
  expect(codeOf(() => decodeWalIndexHeader(new Uint8Array(48)))).toBe('WAL_INDEX_BAD_CHECKSUM');
});

test('readWalIndexHeader() wants both copies equal', () => {
  const segment = new Uint8Array(WALINDEX_PGSZ);
  writeWalIndexHeader(segment, HEADER);
  expect(readWalIndexHeader(segment)).toEqual(HEADER);
  encodeWalIndexHeader(segment.subarray(48), {...HEADER, mxFrame: 13});
  expect(readWalIndexHeader(segment)).toBeUndefined();
  encodeWalIndexHeader(segment, {...HEADER, mxFrame: 13});
  expect(readWalIndexHeader(segment)?.mxFrame).toBe(13);
  expect(segment.subarray(96).every(byte => byte === 0)).toBe(true);
});

test('walIndexSegmentOf() and walIndexSizeFor() change at the borders', () => {
  const frames = [0, 1, HASHTABLE_NPAGE_ONE, HASHTABLE_NPAGE_ONE + 1, HASHTABLE_NPAGE_ONE + HASHTABLE_NPAGE];
  expect(frames.map(walIndexSegmentOf)).toEqual([0, 0, 0, 1, 1]);
  expect(walIndexSegmentOf(HASHTABLE_NPAGE_ONE + HASHTABLE_NPAGE + 1)).toBe(2);
  expect(HASHTABLE_NPAGE_ONE).toBe(4062);
  expect(frames.map(walIndexSizeFor)).toEqual([32768, 32768, 32768, 65536, 65536]);
  expect(WalIndexTable.sizeFor(1)).toBe(32768);
});

test('WalIndexTable finds what a linear scan finds, for any appends, rollbacks and remnants', () => {
  const step = fc.oneof(
    {weight: 6, arbitrary: fc.record({pages: fc.array(fc.nat(40), {minLength: 1, maxLength: 12})})},
    {weight: 1, arbitrary: fc.record({keep: fc.double({min: 0, max: 1, noNaN: true})})},
    // A writer that died: entries that nobody cleans up before the next one appends.
    {weight: 1, arbitrary: fc.record({remnant: fc.array(fc.nat(40), {minLength: 1, maxLength: 12})})},
  );
  const starts = fc.constantFrom(0, HASHTABLE_NPAGE_ONE - 10, HASHTABLE_NPAGE_ONE + HASHTABLE_NPAGE - 10);
  fc.assert(
    fc.property(starts, fc.array(step, {maxLength: 12}), (start, steps) => {
      const {table} = newTable();
      const pgnos = Array.from({length: start}, (_, i) => (i % 500) + 1);
      pgnos.forEach((pgno, i) => {
        table.append(i + 1, pgno);
      });
      for (const action of steps) {
        if ('keep' in action) {
          const mxFrame = Math.max(start, Math.floor(pgnos.length * action.keep));
          pgnos.length = mxFrame;
          table.cleanup(mxFrame);
          continue;
        }
        const pages = 'pages' in action ? action.pages : action.remnant;
        pages.forEach((page, i) => {
          table.append(pgnos.length + i + 1, page + 1);
        });
        if ('pages' in action) pgnos.push(...pages.map(page => page + 1));
      }
      for (let pgno = 1; pgno <= 45; pgno++) {
        const expected = findLinearly(pgnos, pgno, pgnos.length, 1);
        expect(table.find(pgno, pgnos.length)).toBe(expected);
      }
    }),
    {numRuns: 40},
  );
});

test('append() after a dead writer leaves the same bytes as if that one had never been', () => {
  const dirty = newTable();
  const clean = newTable();
  for (let frame = 1; frame <= 50; frame++) {
    dirty.table.append(frame, frame * 3);
    clean.table.append(frame, frame * 3);
  }
  for (let frame = 51; frame <= 90; frame++) dirty.table.append(frame, 3);
  for (let frame = 51; frame <= 60; frame++) {
    dirty.table.append(frame, frame * 5);
    clean.table.append(frame, frame * 5);
  }
  expect(Buffer.compare(dirty.segments[0], clean.segments[0])).toBe(0);
});

test('append() of a new generation leaves the same bytes as on an empty wal-index', () => {
  const used = newTable();
  const fresh = newTable();
  const frames = HASHTABLE_NPAGE_ONE + 30;
  for (let frame = 1; frame <= frames + 500; frame++) used.table.append(frame, frame % 77 === 0 ? 1 : frame);
  for (let frame = 1; frame <= frames; frame++) {
    used.table.append(frame, frame * 7);
    fresh.table.append(frame, frame * 7);
  }
  expect(Buffer.compare(used.segments[0], fresh.segments[0])).toBe(0);
  expect(Buffer.compare(used.segments[1], fresh.segments[1])).toBe(0);
});

test('a full hash table is reported and not searched for ever', () => {
  const {table, segments} = newTable();
  table.append(1, 1);
  new Uint16Array(segments[0].buffer, WALINDEX_PGSZ - 2 * HASHTABLE_NSLOT).fill(9);
  expect(codeOf(() => table.find(5, 1))).toBe('WAL_INDEX_CORRUPT');
  expect(codeOf(() => table.append(2, 5))).toBe('WAL_INDEX_CORRUPT');
});

test('find() never fails otherwise, whatever a segment holds', () => {
  fc.assert(
    fc.property(fc.nat(0xffff), fc.integer({min: 1, max: 0xffffffff}), (value, pgno) => {
      const {table, segments} = newTable();
      table.append(1, 1);
      const slots = new Uint16Array(segments[0].buffer, WALINDEX_PGSZ - 2 * HASHTABLE_NSLOT);
      for (let i = 0; i < slots.length; i += 3) slots[i] = value;
      const found = table.find(pgno, 100);
      expect(found === 0 || table.pgnoOf(found) === pgno).toBe(true);
    }),
    {numRuns: 50},
  );
});

test('WalIndexTable takes a segment that was mapped anew', () => {
  let segment = new Uint8Array(WALINDEX_PGSZ);
  const table = new WalIndexTable(() => segment);
  table.append(1, 8);
  segment = segment.slice();
  expect(table.find(8, 1)).toBe(1);
  table.append(2, 9);
  expect(new Uint32Array(segment.buffer)[35]).toBe(9);
});
