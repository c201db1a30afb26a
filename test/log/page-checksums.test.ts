import {readFileSync, statSync, truncateSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {Disk} from '../../src/lib/disk.ts';
import {PageChecksums, type PageChecksumsOptions} from '../../src/log/page-checksums.ts';
import {xorChecksum} from '../../src/ltx/checksum.ts';
import {CHECKSUM_FLAG, type Checksum, type Position, toChecksum, toTxid} from '../../src/ltx/position.ts';
import {makeRandom, type Random, temporaryDirectory} from './support.ts';

const lockPgno = 9;
const value = (n: number) => toChecksum(CHECKSUM_FLAG | BigInt.asUintN(63, BigInt(n) * 0x1234_5678_9abcn));

function openChecksums(path: string, options: Partial<PageChecksumsOptions> = {}): PageChecksums {
  return PageChecksums.open({disk: new Disk(), path, lockPgno: () => lockPgno, ...options});
}

const newPath = () => join(temporaryDirectory(), 'checksums');

function entriesOf(checksums: PageChecksums): bigint[] {
  return Array.from({length: checksums.pageCount}, (_, index) => checksums.get(index + 1));
}

const sumOf = (entries: readonly bigint[]) =>
  entries.reduce<Checksum>((sum, entry) => xorChecksum(sum, entry as Checksum), CHECKSUM_FLAG);

const stamp = (checksums: PageChecksums, txid: number) => ({
  position: {txid: toTxid(BigInt(txid)), checksum: checksums.checksum} satisfies Position,
  term: 3n,
});

describe('PageChecksums.open()', () => {
  test('says that a file is missing, and makes none', () => {
    const path = newPath();
    const checksums = openChecksums(path);
    expect(checksums.state).toBe('missing');
    expect(checksums.durablePosition).toEqual({txid: 0n, checksum: CHECKSUM_FLAG});
    expect(checksums.pageCount).toBe(0);
    expect(() => statSync(path)).toThrow('ENOENT');
  });

  test('takes a foreign file for a missing one and keeps it until the first flush', () => {
    const path = newPath();
    writeFileSync(path, Buffer.alloc(10_000, 7));
    const checksums = openChecksums(path);
    expect(checksums.state).toBe('missing');
    checksums.setPageSize(512);
    checksums.set(1, value(1));
    expect(readFileSync(path)).toEqual(Buffer.alloc(10_000, 7));
    checksums.flush(stamp(checksums, 1));
    checksums.close();
    const again = openChecksums(path);
    expect(entriesOf(again)).toEqual([value(1)]);
    again.resize(700);
    expect(
      entriesOf(again)
        .slice(1)
        .every(entry => entry === 0n),
    ).toBe(true);
  });

  test('has its layout on disk', () => {
    const path = newPath();
    const checksums = openChecksums(path);
    checksums.setPageSize(1024);
    checksums.set(1, value(1));
    checksums.set(3, value(3));
    checksums.flush(stamp(checksums, 7));
    const bytes = readFileSync(path);
    expect(bytes.toString('latin1', 0, 8)).toBe('FRPGSUM1');
    expect([0, 8, 16].map(offset => bytes.readBigUInt64BE(4096 + offset))).toEqual([value(1), 0n, value(3)]);
    const again = openChecksums(path);
    expect(again.state).toBe('present');
    expect(again.durablePosition).toEqual({txid: 7n, checksum: xorChecksum(value(1), value(3))});
    expect(again.durableTerm).toBe(3n);
    expect(again.pageSize).toBe(1024);
  });

  test('reads no entries', () => {
    const path = newPath();
    const checksums = openChecksums(path);
    checksums.setPageSize(512);
    for (let pgno = 1; pgno < 20_000; pgno++) if (pgno !== lockPgno) checksums.set(pgno, value(pgno));
    checksums.flush(stamp(checksums, 1));
    let bytesRead = 0;
    class CountingDisk extends Disk {
      override read(fd: number, target: Uint8Array, position: number): number {
        bytesRead += target.length;
        return super.read(fd, target, position);
      }
    }
    const again = openChecksums(path, {disk: new CountingDisk()});
    expect(bytesRead).toBe(4096);
    again.set(12_345, value(1));
    expect(bytesRead).toBe(4096 + 4096 * 8);
  });

  test('a file that lost its end has pages without checksum, which recompute() sees', () => {
    const path = newPath();
    const checksums = openChecksums(path);
    checksums.setPageSize(512);
    for (let pgno = 1; pgno < 9; pgno++) checksums.set(pgno, value(pgno));
    checksums.flush(stamp(checksums, 1));
    expect(checksums.recompute()).toBe(checksums.checksum);
    truncateSync(path, 4096 + 20);
    const again = openChecksums(path);
    expect(again.get(8)).toBe(0n);
    expect(again.recompute()).not.toBe(again.checksum);
  });
});

/** A table and a plain array that must agree, with chunks so small and few that everything happens. */
class Pair {
  readonly #random: Random;
  readonly #path = newPath();
  readonly #options: Partial<PageChecksumsOptions>;
  checksums: PageChecksums;
  model: bigint[] = [];

  constructor(random: Random) {
    this.#random = random;
    const cleanChunkCountMax = 1 + random(2);
    this.#options = {entriesPerChunk: 4, cleanChunkCountMax, dirtyChunkCountMax: 2, syncLog: () => {}};
    this.checksums = openChecksums(this.#path, this.#options);
    this.checksums.setPageSize(512);
  }

  change(): void {
    const random = this.#random;
    if (random(4) === 0) {
      this.model = this.model.slice(0, random(this.model.length + 1));
      this.checksums.truncate(this.model.length);
    }
    for (let count = random(6); count > 0; count--) {
      const pgno = 1 + random(Math.min(60, this.model.length + 4));
      if (pgno === lockPgno) continue;
      const checksum = value(random(0xffff_ffff));
      while (this.model.length < pgno) this.model.push(0n);
      this.model[pgno - 1] = checksum;
      this.checksums.set(pgno, checksum);
    }
  }

  check(): void {
    expect(entriesOf(this.checksums)).toEqual(this.model);
    expect(this.checksums.checksum).toBe(sumOf(this.model));
    expect(this.checksums.recompute()).toBe(sumOf(this.model));
  }

  transaction(isKept: boolean): void {
    const before = this.model.slice();
    this.checksums.begin();
    this.change();
    this.change();
    if (isKept) {
      this.checksums.commit();
      return;
    }
    this.checksums.abort();
    this.model = before;
  }

  flushInSteps(txid: number): void {
    const expected = sumOf(this.model);
    const flush = this.checksums.prepareFlush(stamp(this.checksums, txid));
    this.change();
    this.check();
    if (this.#random(4) === 0) {
      flush.abandon();
      return;
    }
    flush.writeEntries();
    this.change();
    flush.writeHeader();
    flush.done();
    expect(this.checksums.durablePosition.checksum).toBe(expected);
  }

  reopen(txid: number): void {
    this.checksums.flush(stamp(this.checksums, txid));
    this.checksums.close();
    this.checksums = openChecksums(this.#path, this.#options);
  }
}

test('agrees with a plain array through changes, aborts, flushes in steps and reopening', () => {
  fc.assert(
    fc.property(fc.integer(), seed => {
      const random = makeRandom(seed);
      const pair = new Pair(random);
      const steps = [
        (txid: number) => pair.checksums.flush(stamp(pair.checksums, txid)),
        (txid: number) => pair.flushInSteps(txid),
        (txid: number) => pair.reopen(txid),
        () => pair.transaction(false),
        () => pair.transaction(true),
        () => pair.change(),
      ];
      for (let txid = 1; txid < 60; txid++) {
        steps[random(steps.length)](txid);
        pair.check();
      }
      pair.checksums.close();
    }),
    {numRuns: 150},
  );
});

describe('flush()', () => {
  test('writes entries, syncs, writes the header, syncs; and nothing when nothing changed', () => {
    const calls: string[] = [];
    const checksums = openChecksums(newPath(), {disk: new Disk({onCall: name => void calls.push(name)})});
    checksums.setPageSize(512);
    checksums.set(1, value(1));
    calls.length = 0;
    checksums.flush(stamp(checksums, 1));
    expect(calls).toEqual([
      'checksums:create',
      'checksums:sync-directory',
      'checksums:entries-write',
      'checksums:entries-sync',
      'checksums:header-write',
      'checksums:header-sync',
    ]);
    calls.length = 0;
    checksums.flush(stamp(checksums, 1));
    expect(calls).toEqual([]);
    checksums.set(1, value(1));
    checksums.flush(stamp(checksums, 1));
    expect(calls).toEqual([]);
  });

  test.each([
    'checksums:entries-write',
    'checksums:header-write',
    'checksums:entries-sync',
    'checksums:header-sync',
  ])('that fails in %s can be repeated', failing => {
    let isFull = true;
    const onCall = (name: string) => {
      if (isFull && name === failing) throw Object.assign(new Error('no space'), {code: 'ENOSPC'});
    };
    const path = newPath();
    const checksums = openChecksums(path, {disk: new Disk({onCall})});
    checksums.setPageSize(512);
    for (let pgno = 1; pgno < 9; pgno++) checksums.set(pgno, value(pgno));
    expect(() => checksums.flush(stamp(checksums, 1))).toThrow('no space');
    expect(checksums.state).toBe('missing');
    isFull = false;
    checksums.set(2, value(77));
    checksums.flush(stamp(checksums, 2));
    const again = openChecksums(path);
    expect(entriesOf(again)).toEqual(entriesOf(checksums));
    expect(again.durablePosition.txid).toBe(2n);
  });
});

describe('memory', () => {
  test('chunks are written early once the log is durable, except inside a transaction', () => {
    let syncs = 0;
    const path = newPath();
    const checksums = openChecksums(path, {
      entriesPerChunk: 4,
      dirtyChunkCountMax: 3,
      syncLog: () => void syncs++,
    });
    checksums.setPageSize(512);
    const setAll = (offset: number) => {
      for (let pgno = 1; pgno < 200; pgno++) if (pgno !== lockPgno) checksums.set(pgno, value(pgno + offset));
    };
    setAll(0);
    expect(syncs).toBe(0); // The file is not valid yet: nothing depends on the log.
    expect(checksums.dirtyChunkCount).toBeLessThanOrEqual(4);
    checksums.flush(stamp(checksums, 1));
    setAll(1);
    expect(syncs).toBeGreaterThan(5);
    expect(checksums.dirtyChunkCount).toBeLessThanOrEqual(4);
    expect(openChecksums(path).durablePosition.txid).toBe(1n);
    const before = syncs;
    checksums.begin();
    setAll(2);
    expect(syncs).toBe(before);
    checksums.abort();
    checksums.close();
  });
});

test('invalidate() and clear() make the file missing until the next flush', () => {
  const path = newPath();
  const checksums = openChecksums(path);
  checksums.setPageSize(512);
  for (let pgno = 1; pgno < 9; pgno++) checksums.set(pgno, value(pgno));
  checksums.flush(stamp(checksums, 1));
  checksums.invalidate();
  expect(openChecksums(path).state).toBe('missing');
  expect(checksums.get(3)).toBe(value(3));
  checksums.flush(stamp(checksums, 1));
  expect(openChecksums(path).state).toBe('present');
  checksums.clear();
  expect(checksums.pageCount).toBe(0);
  expect(checksums.checksum).toBe(CHECKSUM_FLAG);
  expect(openChecksums(path).state).toBe('missing');
  checksums.set(2, value(2));
  checksums.flush(stamp(checksums, 2));
  expect(entriesOf(openChecksums(path))).toEqual([0n, value(2)]);
});

test('our own mistakes stop the process', () => {
  const checksums = openChecksums(newPath());
  expect(() => checksums.set(1, value(1))).toThrow('page size');
  checksums.setPageSize(512);
  expect(() => checksums.set(lockPgno, value(1))).toThrow('lock page');
  checksums.set(1, value(1));
  expect(() => checksums.flush({position: {txid: toTxid(1n), checksum: CHECKSUM_FLAG}, term: 0n})).toThrow(
    'position',
  );
  const flush = checksums.prepareFlush(stamp(checksums, 1));
  expect(() => checksums.prepareFlush(stamp(checksums, 1))).toThrow('one flush');
  flush.writeEntries();
  checksums.invalidate();
  expect(() => flush.writeHeader()).toThrow('void');
});
