import {existsSync} from 'node:fs';
import {describe, expect, test} from 'vitest';
import {Disk} from '../../src/lib/disk.ts';
import {toTxid} from '../../src/ltx/position.ts';
import {
  encodeRecord,
  filledLog,
  makeRandom,
  makeRecords,
  openLog,
  readAll,
  readRecords,
  segmentNames,
  temporaryDirectory,
  writeTransaction,
} from './support.ts';

const nothing = () => {};

describe('TransactionLog.cutAfter()', () => {
  test.each([0, 1, 7, 20, 29, 30])('drops what follows %i, having handed it over, and goes on', after => {
    const {directory, log, records, model} = filledLog(30);
    log.sync();
    const discarded: Uint8Array[] = [];
    log.cutAfter(toTxid(BigInt(after)), source => void discarded.push(readAll(source)));
    expect(discarded).toEqual(records.slice(after));
    expect(log.position).toEqual(model.history[after].position);
    expect(log.syncedTxid).toBe(BigInt(after));
    expect(log.unsyncedBytes).toBe(0);
    expect(readRecords(log)).toEqual(records.slice(0, after));
    const reopened = openLog(directory);
    expect(readRecords(reopened)).toEqual(records.slice(0, after));
    reopened.close();
    model.rewind(BigInt(after));
    const other: Uint8Array[] = [];
    for (let count = 0; count < 5; count++) {
      const transaction = model.change(makeRandom(99 + count), 7);
      other.push(encodeRecord(transaction, 9));
      writeTransaction(log, transaction);
    }
    expect(readRecords(log)).toEqual([...records.slice(0, after), ...other]);
    log.close();
    expect(readRecords(openLog(directory))).toEqual([...records.slice(0, after), ...other]);
  });

  test('drops nothing when handing over fails', () => {
    const {directory, log, records} = filledLog(10);
    const fail = () => {
      throw new Error('lost/ is full');
    };
    expect(() => log.cutAfter(toTxid(3n), fail)).toThrow('lost/ is full');
    expect(readRecords(log)).toEqual(records);
    log.close();
    expect(readRecords(openLog(directory))).toEqual(records);
  });

  test('sources handed out before are void', () => {
    const {log} = filledLog(10);
    const [early] = log.entries(toTxid(2n), 1);
    const [late] = log.entries(toTxid(9n), 1);
    const source = log.read(early);
    log.cutAfter(toTxid(5n), nothing);
    expect(() => readAll(source)).toThrow(expect.objectContaining({code: 'LOG_GONE'}));
    expect(() => log.read(late)).toThrow(expect.objectContaining({code: 'LOG_GONE'}));
    expect(readAll(log.read(early)).length).toBe(early.size);
  });
});

describe('TransactionLog.reset()', () => {
  test('goes on after the new base', () => {
    const {directory, log, model} = filledLog(10);
    for (let count = 0; count < 5; count++) model.change(makeRandom(count), 5);
    const base = {position: model.position, term: 9n};
    log.reset(base);
    expect(log.base).toEqual(base);
    expect(log.position).toEqual(base.position);
    expect(log.term).toBe(9n);
    expect(segmentNames(directory)).toEqual([]);
    writeTransaction(log, model.change(makeRandom(77), 6));
    log.close();
    const again = openLog(directory);
    expect(again.base).toEqual(base);
    expect(again.position).toEqual(model.position);
    expect(again.first()?.minTxid).toBe(16n);
    again.close();
  });
});

describe('TransactionLog.prune()', () => {
  test('drops whole old segments that nobody needs', () => {
    const {directory, log, records, model} = filledLog(40);
    const before = segmentNames(directory);
    const all = {keepFrom: toTxid(100n), olderThanMs: 1000, nowMs: 0};
    expect(log.prune(all)).toBe(0);
    expect(log.prune({...all, nowMs: 1_000_000, keepFrom: toTxid(1n)})).toBe(0);
    expect(log.prune({...all, nowMs: 1_000_000, keepFrom: toTxid(20n)})).toBeGreaterThan(0);
    const base = Number(log.base.position.txid);
    expect(base).toBeLessThan(20);
    expect(log.base.position).toEqual(model.history[base].position);
    expect(readRecords(log)).toEqual(records.slice(base));
    expect(log.entry(toTxid(1n))).toBeUndefined();
    const again = openLog(directory);
    expect(readRecords(again)).toEqual(records.slice(base));
    expect(again.base).toEqual(log.base);
    again.close();
    expect(log.prune({...all, nowMs: 1_000_000})).toBeGreaterThan(0);
    expect(segmentNames(directory)).toEqual(before.slice(-1));
    expect(log.last()?.maxTxid).toBe(40n);
    log.close();
  });

  test('drops by size, whatever the age', () => {
    const {log} = filledLog(40);
    const sizeBefore = log.size;
    log.prune({keepFrom: toTxid(100n), olderThanMs: 1_000_000_000, nowMs: 0, bytesMax: sizeBefore / 2});
    expect(log.size).toBeLessThanOrEqual(sizeBefore / 2);
    expect(log.size).toBeGreaterThan(sizeBefore / 2 - 5000);
  });

  test('what is dropped while it is read is gone, an open file is not', () => {
    const {log} = filledLog(40);
    const [entry] = log.entries(toTxid(1n), 1);
    const source = log.read(entry);
    const path = log.path(entry);
    log.prune({keepFrom: toTxid(100n), olderThanMs: 0, nowMs: 1_000_000});
    expect(existsSync(path)).toBe(false);
    expect(() => readAll(source)).toThrow(expect.objectContaining({code: 'LOG_GONE'}));
    expect(() => log.path(entry)).toThrow(expect.objectContaining({code: 'LOG_GONE'}));
  });
});

describe('syncing', () => {
  test('counts what is not durable', () => {
    const {log, records} = filledLog(30);
    const sizes = records.map(record => record.length);
    const sum = (from: number) => sizes.slice(from).reduce((total, size) => total + size, 0);
    expect(log.unsyncedBytes).toBe(sum(0));
    log.markSynced(toTxid(30n));
    expect(log.syncedTxid).toBe(0n); // Nobody asked what to sync.
    const targets = log.syncTargets();
    expect(new Set(targets).size).toBe(targets.length);
    expect(targets.length).toBeGreaterThan(3);
    const {model} = makeRecords(30, 30);
    writeTransaction(log, model.change(makeRandom(1), 3));
    log.markSynced(toTxid(12n));
    expect(log.syncedTxid).toBe(12n);
    expect(log.unsyncedBytes).toBe(sum(12) + (log.last()?.size ?? 0));
    log.syncTargets();
    log.markSynced(toTxid(31n));
    expect(log.unsyncedBytes).toBe(0);
    expect(log.syncTargets()).toEqual([]);
    log.close();
  });

  test('a sync that began before a cut vouches for nothing after it', () => {
    const {log, model} = filledLog(10);
    log.syncTargets();
    log.cutAfter(toTxid(5n), nothing);
    model.rewind(5n);
    for (let count = 0; count < 5; count++) writeTransaction(log, model.change(makeRandom(count), 4));
    log.markSynced(toTxid(10n));
    expect(log.syncedTxid).toBe(5n);
    log.sync();
    expect(log.syncedTxid).toBe(10n);
  });

  test('a failed cut closes the log, and the next open completes it', () => {
    let isBroken = false;
    const onCall = (name: string) => {
      if (isBroken && name === 'log:segment-truncate')
        throw Object.assign(new Error('broken'), {code: 'EIO'});
    };
    const directory = temporaryDirectory();
    const {records} = makeRecords(8, 10);
    const log = openLog(directory, {disk: new Disk({onCall})});
    for (const record of records) log.append(record);
    isBroken = true;
    expect(() => log.cutAfter(toTxid(4n), nothing)).toThrow('broken');
    expect(() => log.append(records[4])).toThrow(expect.objectContaining({code: 'LOG_FAILED'}));
    log.close();
    expect(readRecords(openLog(directory))).toEqual(records.slice(0, 4));
  });
});
