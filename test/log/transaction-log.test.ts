import {readdirSync, readFileSync, rmSync, truncateSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, expect, test} from 'vitest';
import {Disk} from '../../src/lib/disk.ts';
import {TransactionLog} from '../../src/log/transaction-log.ts';
import {CHECKSUM_FLAG, toChecksum, toTxid} from '../../src/ltx/position.ts';
import {bytesSource} from '../../src/ltx/record-reader.ts';
import {
  crc64,
  encodeRecord,
  filledLog,
  ModelDatabase,
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

describe('TransactionLog.open()', () => {
  test('makes an empty log at the empty position', () => {
    const log = openLog(join(temporaryDirectory(), 'a', 'log'));
    expect(log.position).toEqual({txid: 0n, checksum: CHECKSUM_FLAG});
    expect(log.base).toEqual({position: log.position, term: 0n});
    expect(log.first()).toBeUndefined();
    expect(log.last()).toBeUndefined();
    expect(log.entries(toTxid(0n), 10)).toEqual([]);
    log.close();
  });

  test.each([true, false])('finds all records again, verifyTail %s', verifyTail => {
    const {directory, log, records, model} = filledLog(40);
    log.close();
    const again = openLog(directory, {verifyTail});
    expect(again.position).toEqual(model.position);
    expect(again.term).toBe(1n);
    expect(again.cutBytesAtOpen).toBe(0);
    expect(readRecords(again)).toEqual(records);
    expect(segmentNames(directory).length).toBeGreaterThan(3);
    again.close();
  });

  test('refuses a foreign file and leaves everything as it is', () => {
    const {directory, log} = filledLog(5);
    log.close();
    writeFileSync(join(directory, 'notes.txt'), 'x');
    const names = readdirSync(directory);
    expect(() => openLog(directory)).toThrow(expect.objectContaining({code: 'LOG_FOREIGN'}));
    expect(readdirSync(directory)).toEqual(names);
  });

  test('refuses segments without a base file', () => {
    const {directory, log} = filledLog(5);
    log.close();
    rmSync(join(directory, 'base'));
    expect(() => openLog(directory)).toThrow(expect.objectContaining({code: 'LOG_CORRUPT'}));
  });

  test('refuses a log that lost durable records, and deletes nothing', () => {
    const {directory, log} = filledLog(30);
    log.sync();
    log.close();
    const names = segmentNames(directory);
    rmSync(join(directory, names[1]));
    for (const verifyTail of [true, false]) {
      expect(() => openLog(directory, {verifyTail})).toThrow(expect.objectContaining({code: 'LOG_CORRUPT'}));
    }
    expect(segmentNames(directory)).toEqual(names.filter((_, index) => index !== 1));
  });

  test('refuses a durable segment that was cut short', () => {
    const {directory, log} = filledLog(30);
    log.sync();
    log.close();
    const path = join(directory, segmentNames(directory)[1]);
    truncateSync(path, readFileSync(path).length - 1);
    expect(() => openLog(directory)).toThrow(expect.objectContaining({code: 'LOG_CORRUPT'}));
  });

  test('makes missing, short and overwritten indexes anew', () => {
    const {directory, log, records} = filledLog(40);
    log.sync();
    log.close();
    const indexes = readdirSync(directory).filter(name => name.endsWith('.ltxi'));
    const contents = indexes.map(name => readFileSync(join(directory, name)));
    rmSync(join(directory, indexes[0]));
    truncateSync(join(directory, indexes[1]), 200);
    writeFileSync(join(directory, indexes[2]), contents[1]);
    for (const verifyTail of [true, false]) {
      const again = openLog(directory, {verifyTail});
      expect(readRecords(again)).toEqual(records);
      again.close();
    }
    expect(indexes.map(name => readFileSync(join(directory, name)))).toEqual(contents);
  });

  test('reads whole records only after the synced mark', () => {
    const {directory, log, records} = filledLog(40, 1_000_000);
    log.sync();
    log.close();
    let bytesRead = 0;
    class CountingDisk extends Disk {
      override read(fd: number, target: Uint8Array, position: number): number {
        const count = super.read(fd, target, position);
        bytesRead += count;
        return count;
      }
    }
    openLog(directory, {disk: new CountingDisk()}).close();
    expect(bytesRead).toBeLessThan(700);
    expect(records.reduce((sum, record) => sum + record.length, 0)).toBeGreaterThan(5000);
  });
});

describe('TransactionLog.begin()', () => {
  test('writes the same bytes as the encoder, with one write for the record and one for the index', () => {
    const calls: string[] = [];
    const directory = temporaryDirectory();
    const log = openLog(directory, {disk: new Disk({onCall: name => void calls.push(name)})});
    const model = new ModelDatabase();
    const random = makeRandom(7);
    const first = model.change(random, 3);
    writeTransaction(log, first);
    calls.length = 0;
    const second = model.change(random, 5);
    const entry = writeTransaction(log, second);
    expect(calls).toEqual(['log:record-write', 'log:index-write']);
    expect(readRecords(log)).toEqual([first, second].map(transaction => encodeRecord(transaction, 9)));
    expect(entry).toEqual(log.last());
    expect(entry).toMatchObject({
      minTxid: 2n,
      maxTxid: 2n,
      term: 1n,
      commit: 5,
      pageSize: 512,
      preApplyChecksum: first.postApplyChecksum,
      postApplyChecksum: second.postApplyChecksum,
      walOffset: 34,
      walSize: 77,
      walSalt1: 0xfedc_ba98,
    });
    log.close();
  });

  test('streams a record larger than its buffer', () => {
    const directory = temporaryDirectory();
    const log = openLog(directory);
    const model = new ModelDatabase(4096, 1_000_000);
    const options = {lockPgno: () => 1_000_000};
    log.close();
    const large = openLog(directory, options);
    const transaction = model.change(makeRandom(1), 400);
    const writer = large.begin(transaction.header, {compress: false});
    for (const {pgno, page} of transaction.pages) writer.encodePage(pgno, page);
    expect(writer.size).toBeGreaterThan(400 * 4096);
    expect(large.last()).toBeUndefined();
    const entry = writer.commit(transaction.postApplyChecksum);
    expect(entry.size).toBe(writer.size);
    const record = readAll(large.read(entry));
    large.close();
    const copy = openLog(temporaryDirectory(), options);
    const source = bytesSource(record);
    copy.appendFrom({size: source.size, read: (position, target) => source.read(position, target)});
    for (const reader of [copy, openLog(directory, options)]) {
      const [read] = readRecords(reader);
      expect(Buffer.compare(read, record)).toBe(0);
      reader.close();
    }
  });

  test('an aborted record leaves nothing, finished or not', () => {
    const directory = temporaryDirectory();
    const log = openLog(directory);
    const model = new ModelDatabase();
    const random = makeRandom(3);
    writeTransaction(log, model.change(random, 4));
    const size = log.size;
    const given = model.change(random, 6);
    for (const isFinished of [false, true]) {
      const writer = log.begin(given.header, {compress: false});
      for (const {pgno, page} of given.pages) writer.encodePage(pgno, page);
      if (isFinished) writer.finish(given.postApplyChecksum);
      writer.abort();
      writer.abort();
      expect(log.position.txid).toBe(1n);
      expect(readFileSync(join(directory, segmentNames(directory)[0])).length).toBe(size);
    }
    writeTransaction(log, given);
    log.close();
    expect(openLog(directory).position).toEqual(model.position);
  });

  test('a finished record that was not published is found after a crash', () => {
    const directory = temporaryDirectory();
    const log = openLog(directory);
    const model = new ModelDatabase();
    const transaction = model.change(makeRandom(3), 4);
    const writer = log.begin(transaction.header, {compress: false});
    for (const {pgno, page} of transaction.pages) writer.encodePage(pgno, page);
    writer.finish(transaction.postApplyChecksum);
    expect(log.last()).toBeUndefined();
    const again = openLog(directory);
    expect(again.position).toEqual(model.position);
    again.cutAfter(toTxid(0n), nothing);
    expect(again.position.txid).toBe(0n);
  });

  test('refuses what does not follow on', () => {
    const {log, model} = filledLog(3);
    const next = model.change(makeRandom(9), 4);
    const wrong = [
      {...next.header, minTxid: toTxid(5n), maxTxid: toTxid(5n)},
      {...next.header, preApplyChecksum: next.header.preApplyChecksum ^ 1n},
      {...next.header, minTxid: toTxid(1n), preApplyChecksum: 0n},
    ];
    for (const header of wrong) {
      expect(() => log.begin(header, {compress: false})).toThrow(expect.objectContaining({code: 'LOG_GAP'}));
    }
    writeTransaction(log, next);
    log.close();
  });

  test.each(['log:record-write', 'log:index-write', 'log:segment-create', 'log:index-create'])(
    'goes on after ENOSPC in %s',
    failing => {
      let isFull = false;
      const onCall = (name: string) => {
        if (isFull && name === failing) throw Object.assign(new Error('no space'), {code: 'ENOSPC'});
      };
      const directory = temporaryDirectory();
      const log = openLog(directory, {disk: new Disk({onCall}), segmentBytesMax: 1});
      const {records, model} = makeRecords(5, 5);
      log.append(records[0]);
      isFull = true;
      const full = expect.objectContaining({code: 'ENOSPC'});
      expect(() => log.append(records[1])).toThrow(full);
      const random = makeRandom(1);
      const probe = new ModelDatabase();
      probe.history.splice(0, 1, ...model.history.slice(0, 2));
      const large = probe.change(random, 12);
      expect(() => writeTransaction(log, large)).toThrow(full);
      expect(log.position).toEqual(model.history[1].position);
      isFull = false;
      for (const record of records.slice(1)) log.append(record);
      expect(readRecords(log)).toEqual(records);
      log.close();
      expect(readRecords(openLog(directory))).toEqual(records);
    },
  );

  test('a tail that could not be cut off is cut off before the next record', () => {
    const failing = new Set<string>();
    const onCall = (name: string) => {
      if (failing.has(name)) throw Object.assign(new Error('broken'), {code: 'EIO'});
    };
    const directory = temporaryDirectory();
    const log = openLog(directory, {disk: new Disk({onCall})});
    const {records} = makeRecords(5, 3);
    log.append(records[0]);
    failing.add('log:index-write').add('log:segment-truncate');
    expect(() => log.append(records[1])).toThrow(expect.objectContaining({code: 'EIO'}));
    failing.delete('log:index-write');
    expect(() => log.append(records[1])).toThrow(expect.objectContaining({code: 'EIO'}));
    failing.clear();
    log.append(records[1]);
    expect(readRecords(log)).toEqual(records.slice(0, 2));
    expect(readFileSync(join(directory, segmentNames(directory)[0])).length).toBe(log.size);
  });
});

describe('TransactionLog.append()', () => {
  test('refuses records cut short, and a source that ends early', () => {
    const log = openLog(temporaryDirectory());
    const {records} = makeRecords(5, 1);
    expect(() => log.append(records[0].subarray(0, 120))).toThrow(
      expect.objectContaining({code: 'LOG_BAD_RECORD'}),
    );
    const source = {
      size: records[0].length,
      read: (position: number, target: Uint8Array) =>
        position === 0 && target.length > 100 ? 0 : bytesSource(records[0]).read(position, target),
    };
    expect(() => log.appendFrom(source)).toThrow(expect.objectContaining({code: 'LOG_BAD_RECORD'}));
    log.append(records[0]);
    expect(readRecords(log)).toEqual(records);
  });
});

describe('entries', () => {
  test('entry() and entries() agree with the records, in memory or not', () => {
    const {directory, log, records} = filledLog(300, 20_000);
    const again = openLog(directory);
    for (const reader of [log, again]) {
      for (let txid = 1n; txid <= 300n; txid++) {
        const entry = reader.entry(toTxid(txid));
        expect(entry?.minTxid).toBe(txid);
        if (entry !== undefined) expect(readAll(reader.read(entry))).toEqual(records[Number(txid) - 1]);
      }
      expect(reader.entry(toTxid(0n))).toBeUndefined();
      expect(reader.entry(toTxid(301n))).toBeUndefined();
      for (const [from, count] of [
        [1, 3],
        [50, 100],
        [299, 10],
        [240, 500],
        [301, 5],
        [17, 1],
      ]) {
        const list = reader.entries(toTxid(BigInt(from)), count).map(entry => Number(entry.minTxid));
        const length = Math.max(0, Math.min(count, 301 - from));
        expect(list).toEqual(Array.from({length}, (_, index) => from + index));
      }
      expect(reader.first()?.minTxid).toBe(1n);
      expect(reader.last()?.maxTxid).toBe(300n);
      reader.close();
    }
  });

  test('records of several transactions are found by any of them', () => {
    const directory = temporaryDirectory();
    const model = new ModelDatabase();
    const random = makeRandom(4);
    const log = openLog(directory);
    const last = [1n, 4n, 5n, 15n, 17n, 18n];
    let before = {txid: 0n, checksum: CHECKSUM_FLAG};
    for (const maxTxid of last) {
      const transaction = model.change(random, 3);
      const header = {
        ...transaction.header,
        minTxid: toTxid(before.txid + 1n),
        maxTxid: toTxid(maxTxid),
        preApplyChecksum: before.txid === 0n ? 0n : before.checksum,
      };
      writeTransaction(log, {...transaction, header});
      before = {txid: maxTxid, checksum: transaction.postApplyChecksum};
    }
    log.close();
    const again = openLog(directory);
    for (let txid = 1n; txid <= 18n; txid++) {
      const expected = last.find(maxTxid => maxTxid >= txid);
      expect(again.entry(toTxid(txid))?.maxTxid).toBe(expected);
      expect(again.entries(toTxid(txid), 1).map(entry => entry.maxTxid)).toEqual([expected]);
    }
    expect(() => again.cutAfter(toTxid(10n), nothing)).toThrow(
      expect.objectContaining({code: 'LOG_NOT_FOUND'}),
    );
  });

  test('an index entry that went bad while the log is open is made anew', () => {
    const {directory, log, records} = filledLog(300, 1_000_000);
    const path = join(directory, readdirSync(directory).find(name => name.endsWith('.ltxi')) ?? '');
    const bytes = readFileSync(path);
    bytes[136 * 20 + 50] ^= 1;
    writeFileSync(path, bytes);
    const entry = log.entry(toTxid(21n));
    expect(entry?.minTxid).toBe(21n);
    expect(readRecords(log)).toEqual(records);
    log.close();
  });
});

test('a record without pages is one', () => {
  const log = openLog(temporaryDirectory());
  const {header} = new ModelDatabase().change(makeRandom(1), 0);
  log.begin(header, {compress: false}).commit(toChecksum(CHECKSUM_FLAG));
  expect(readRecords(log).map(record => record.length)).toEqual([131]);
});

test('the pending byte need not be at its usual place', () => {
  const log = TransactionLog.open({
    disk: new Disk(),
    directory: temporaryDirectory(),
    crc64,
    lockPgno: () => 2,
    verifyTail: true,
  });
  const transaction = new ModelDatabase(512, 2).change(makeRandom(1), 3);
  writeTransaction(log, transaction);
  expect(transaction.pages.map(({pgno}) => pgno)).toEqual([1, 3]);
});
