import {mkdirSync} from 'node:fs';
import {join} from 'node:path';
import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {Disk} from '../../src/lib/disk.ts';
import {replayChecksums} from '../../src/log/checksum-replay.ts';
import {PageChecksums} from '../../src/log/page-checksums.ts';
import type {TransactionLog} from '../../src/log/transaction-log.ts';
import {PageHasher} from '../../src/ltx/checksum.ts';
import {toTxid} from '../../src/ltx/position.ts';
import {PowerLossDisk} from './power-loss-disk.ts';
import {
  Crash,
  crc64,
  ModelDatabase,
  type ModelTransaction,
  makeRandom,
  openLog,
  type Random,
  temporaryDirectory,
} from './support.ts';

const hasher = new PageHasher(crc64);

interface Tables {
  readonly log: TransactionLog;
  readonly checksums: PageChecksums;
  /** Makes the log durable before entries are written, unless the test is of what happens otherwise. */
  readonly syncLog: (log: TransactionLog) => void;
}

const sync = (log: TransactionLog) => log.sync();

function openTables(directory: string, disk: Disk, random: Random, syncLog = sync): Tables {
  const log = openLog(join(directory, 'log'), {disk, segmentBytesMax: 1000 + random(5000)});
  const checksums = PageChecksums.open({
    disk,
    path: join(directory, 'checksums'),
    lockPgno: () => 9,
    entriesPerChunk: 4,
    cleanChunkCountMax: 2,
    dirtyChunkCountMax: 1,
    syncLog: () => syncLog(log),
  });
  return {log, checksums, syncLog};
}

/** As the database does it: the record is written, and its checksum is that of the table. */
function execute({log, checksums}: Tables, transaction: ModelTransaction): void {
  const writer = log.begin(transaction.header, {compress: true});
  checksums.begin();
  checksums.setPageSize(transaction.header.pageSize);
  for (const {pgno, page} of transaction.pages) {
    writer.encodePage(pgno, page);
    checksums.set(pgno, hasher.checksum(pgno, page));
  }
  checksums.resize(transaction.header.commit);
  expect(checksums.checksum).toBe(transaction.postApplyChecksum);
  writer.commit(checksums.checksum);
  checksums.commit();
}

function expectModel({log, checksums}: Tables, model: ModelDatabase): void {
  const {checksums: expected, position} = model.history[Number(log.position.txid)];
  expect(log.position).toEqual(position);
  const found = Array.from({length: checksums.pageCount}, (_, index) => checksums.get(index + 1));
  expect(found).toEqual(expected);
  expect(checksums.checksum).toBe(position.checksum);
  expect(checksums.recompute()).toBe(position.checksum);
}

const stampOf = (log: TransactionLog) => ({position: log.position, term: log.term});

function useRandomly(tables: Tables, model: ModelDatabase, random: Random, stepCount: number): void {
  const {log, checksums, syncLog} = tables;
  for (let step = 0; step < stepCount; step++) {
    const kind = random(12);
    if (kind === 0) log.sync();
    else if (kind === 1) {
      syncLog(log);
      checksums.flush(stampOf(log));
    } else if (kind === 2) flushInSteps(tables, () => execute(tables, model.change(random, 1 + random(40))));
    else if (kind === 3) {
      const keepFrom = toTxid(checksums.durablePosition.txid + 1n);
      if (checksums.state === 'present') log.prune({keepFrom, olderThanMs: 0, nowMs: 1e9});
    } else execute(tables, model.change(random, 1 + random(40)));
  }
}

/** As when another thread syncs: transactions go on between the steps. */
function flushInSteps({log, checksums, syncLog}: Tables, between: () => void): void {
  const stamp = stampOf(log);
  const flush = checksums.prepareFlush(stamp);
  between();
  syncLog(log);
  flush.writeEntries();
  between();
  syncFile(flush.fd());
  flush.writeHeader();
  between();
  syncFile(flush.fd());
  flush.done();
  expect(checksums.durablePosition).toEqual(stamp.position);

  function syncFile(fd: number): void {
    currentDisk.sync('test:sync', fd);
  }
}

let currentDisk: Disk = new Disk();

function openDisk(directory: string, random: Random, kindOfDisk: typeof PowerLossDisk): PowerLossDisk {
  let callsLeft = 10 + random(400);
  const onCall = (name: string) => {
    if (callsLeft-- <= 0) throw new Crash(name);
  };
  const disk = new kindOfDisk(directory, {onCall});
  currentDisk = disk;
  return disk;
}

/** Lives of one database, each ended by a loss of power; after each the table must be that of the log's position. */
function livesThrough(seed: number, kindOfDisk: typeof PowerLossDisk, syncLog = sync): void {
  const random = makeRandom(seed);
  const model = new ModelDatabase();
  let directory = temporaryDirectory();
  for (let life = 0; life < 5; life++) {
    const disk = openDisk(directory, random, kindOfDisk);
    let durableTxid = 0n;
    try {
      const tables = openTables(directory, disk, random, syncLog);
      if (replayChecksums({...tables, crc64, lockPgno: () => 9}) === 'rebuild') rebuild(tables, model);
      useRandomly(tables, model, random, 60);
      durableTxid = tables.log.syncedTxid;
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
    }
    directory = temporaryDirectory();
    mkdirSync(join(directory, 'log'));
    disk.lose(directory, random);
    const found = openTables(directory, new Disk(), random);
    expect(found.log.position.txid).toBeGreaterThanOrEqual(durableTxid);
    model.rewind(found.log.position.txid);
    if (replayChecksums({...found, crc64, lockPgno: () => 9}) === 'current') expectModel(found, model);
    else expect(found.checksums.pageCount).toBe(0);
    found.log.close();
    found.checksums.close();
  }
}

/** Stands for reading the whole database. */
function rebuild({log, checksums}: Tables, model: ModelDatabase): void {
  const {checksums: entries} = model.history[Number(log.position.txid)];
  checksums.setPageSize(model.pageSize);
  checksums.resize(entries.length);
  for (const [index, entry] of entries.entries()) if (entry !== 0n) checksums.set(index + 1, entry as never);
  log.sync();
  checksums.flush(stampOf(log));
}

describe('replayChecksums()', () => {
  test('brings the table to the end of the log after any loss of power', () => {
    fc.assert(
      fc.property(fc.integer(), seed => livesThrough(seed, PowerLossDisk)),
      {numRuns: 25},
    );
  });

  test('the test would see a disk that does not sync', () => {
    class LyingDisk extends PowerLossDisk {
      override sync(): void {}
    }
    expect(() => {
      for (let seed = 0; seed < 80; seed++) livesThrough(seed, LyingDisk);
    }).toThrow();
  });

  test('the test would see entries that are written before their transactions are durable', () => {
    expect(() => {
      for (let seed = 0; seed < 80; seed++) livesThrough(seed, PowerLossDisk, () => {});
    }).toThrow(/deeply equal|to be/);
  });

  test('wants a rebuild when the log is another one, was cut, or does not reach back', () => {
    const random = makeRandom(1);
    const directory = temporaryDirectory();
    const tables = openTables(directory, new Disk(), random);
    const {log, checksums} = tables;
    const model = new ModelDatabase();
    for (let count = 0; count < 6; count++) execute(tables, model.change(random, 20));
    const reopened = () => {
      const again = PageChecksums.open({
        disk: new Disk(),
        path: join(directory, 'checksums'),
        lockPgno: () => 9,
      });
      return replayChecksums({checksums: again, log, crc64, lockPgno: () => 9});
    };
    expect(reopened()).toBe('rebuild');
    log.sync();
    checksums.flush(stampOf(log));
    expect(reopened()).toBe('current');
    log.cutAfter(toTxid(4n), () => {});
    expect(reopened()).toBe('rebuild');
    model.rewind(4n);
    model.term = 2n;
    checksums.clear();
    rebuild(tables, model);
    for (let count = 0; count < 6; count++) execute(tables, model.change(random, 20));
    expect(reopened()).toBe('current');
    log.reset({position: {txid: toTxid(50n), checksum: log.position.checksum}, term: 2n});
    expect(reopened()).toBe('rebuild');
  });

  test('a database may change its page size', () => {
    const random = makeRandom(1);
    const directory = temporaryDirectory();
    const tables = openTables(directory, new Disk(), random);
    const model = new ModelDatabase();
    execute(tables, model.change(random, 20));
    tables.log.sync();
    tables.checksums.flush(stampOf(tables.log));
    const larger = new ModelDatabase(1024);
    const {pages, postApplyChecksum, header} = larger.change(random, 5);
    const next = model.change(random, 5).header;
    execute(tables, {pages, postApplyChecksum, header: {...next, pageSize: header.pageSize}});
    tables.checksums.close();
    const found = openTables(directory, new Disk(), random);
    expect(replayChecksums({...found, crc64, lockPgno: () => 9})).toBe('current');
    expect(found.checksums.pageSize).toBe(1024);
    expect(found.checksums.pageCount).toBe(5);
    expect(found.checksums.recompute()).toBe(postApplyChecksum);
  });
});
