import {cpSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {TransactionLog} from '../../src/log/transaction-log.ts';
import {LtxDecoder} from '../../src/ltx/decoder.ts';
import {toTxid} from '../../src/ltx/position.ts';
import {bytesSource} from '../../src/ltx/record-reader.ts';
import {LogModel, runRandomly} from './log-model.ts';
import {PowerLossDisk} from './power-loss-disk.ts';
import {
  Crash,
  crashingDisk,
  crc64,
  encodeRecord,
  makeRandom,
  makeRecords,
  openLog,
  readRecords,
  temporaryDirectory,
} from './support.ts';

const nothing = () => {};

function decodePages(record: Uint8Array): string[] {
  const decoder = new LtxDecoder({source: bytesSource(record), crc64: crc64.create(), lockPgno: 9});
  const pages: string[] = [];
  for (let next = decoder.nextPage(); next !== undefined; next = decoder.nextPage()) {
    pages.push(`${next.pgno}:${Buffer.from(next.page).toString('hex')}`);
  }
  decoder.close();
  return pages;
}

/** What each kind of change does to a log of ten records, and the records that may be found after a crash in it. */
const changes: readonly {
  name: string;
  run: (log: TransactionLog, next: Uint8Array) => void;
  kept: readonly [number, number][];
}[] = [
  {
    name: 'append',
    run: (log, next) => void log.append(next),
    kept: [
      [0, 10],
      [0, 11],
    ],
  },
  {
    name: 'cutAfter in the last segment',
    run: log => log.cutAfter(toTxid(9n), nothing),
    kept: [
      [0, 10],
      [0, 9],
    ],
  },
  {
    name: 'cutAfter over segments',
    run: log => log.cutAfter(toTxid(2n), nothing),
    kept: [
      [0, 10],
      [0, 2],
    ],
  },
  {
    name: 'cutAfter all',
    run: log => log.cutAfter(toTxid(0n), nothing),
    kept: [
      [0, 10],
      [0, 0],
    ],
  },
  {name: 'sync', run: log => log.sync(), kept: [[0, 10]]},
];

describe('a crash at each disk call', () => {
  test.each(changes)('of $name leaves the log as before or after', ({run, kept}) => {
    const {records} = makeRecords(10, 11);
    for (let callIndex = 0; ; callIndex++) {
      const directory = temporaryDirectory();
      const filled = openLog(directory, {segmentBytesMax: 900});
      for (const record of records.slice(0, 10)) filled.append(record);
      filled.close();
      const {disk, calls} = crashingDisk(callIndex);
      let isComplete = false;
      try {
        const log = openLog(directory, {disk, segmentBytesMax: 900});
        run(log, records[10]);
        isComplete = true;
      } catch (error) {
        expect(error).toBeInstanceOf(Crash);
      }
      const again = openLog(directory);
      const found = readRecords(again);
      expect(
        kept.map(([from, to]) => records.slice(from, to)),
        `crash at ${calls.at(-1)}`,
      ).toContainEqual(found);
      if (isComplete) expect(found.length).toBe(kept[kept.length - 1][1]);
      again.close();
      if (isComplete) break;
    }
  });

  test.each(['reset', 'prune'])('of %s leaves the log as before or after', kind => {
    const {records, model} = makeRecords(10, 10);
    const base = {position: {...model.position, txid: toTxid(99n)}, term: 4n};
    for (let callIndex = 0; ; callIndex++) {
      const directory = temporaryDirectory();
      const filled = openLog(directory, {segmentBytesMax: 400});
      for (const record of records) filled.append(record);
      filled.close();
      const {disk} = crashingDisk(callIndex);
      let isComplete = false;
      try {
        const log = openLog(directory, {disk, segmentBytesMax: 400});
        if (kind === 'reset') log.reset(base);
        else expect(log.prune({keepFrom: toTxid(8n), olderThanMs: 0, nowMs: 1e9})).toBeGreaterThan(1);
        isComplete = true;
      } catch (error) {
        expect(error).toBeInstanceOf(Crash);
      }
      const again = openLog(directory);
      const found = readRecords(again);
      if (kind === 'reset') {
        expect([records, []]).toContainEqual(found);
        expect(again.base).toEqual(
          found.length === 0 ? base : {position: model.history[0].position, term: 0n},
        );
      } else {
        const dropped = Number(again.base.position.txid);
        expect(found).toEqual(records.slice(dropped));
        expect(again.base.position).toEqual(model.history[dropped].position);
      }
      again.close();
      if (isComplete) break;
    }
  });
});

describe('a damaged segment', () => {
  const {records, model} = makeRecords(21, 4);
  const ends = records.map((_, index) =>
    records.slice(0, index + 1).reduce((sum, record) => sum + record.length, 0),
  );

  function filled(): {directory: string; segment: string; bytes: Buffer} {
    const directory = temporaryDirectory();
    const log = openLog(directory);
    for (const record of records) log.append(record);
    log.close();
    const segment = join(directory, readdirSync(directory).find(name => name.endsWith('.ltxs')) ?? '');
    return {directory, segment, bytes: readFileSync(segment)};
  }

  test('that was torn anywhere is cut to its whole records', () => {
    const {directory, segment, bytes} = filled();
    for (let size = 0; size < bytes.length; size++) {
      const count = ends.filter(end => end <= size).length;
      for (const tail of size % 16 === 0 ? [0, 40] : [0]) {
        writeFileSync(segment, Buffer.concat([bytes.subarray(0, size), Buffer.alloc(tail)]));
        const log = openLog(directory);
        expect(log.position).toEqual(model.history[count].position);
        expect(log.cutBytesAtOpen).toBe(size + tail - (ends[count - 1] ?? 0));
        log.append(records[count]);
        log.close();
      }
    }
  });

  test('with any byte wrong is cut before the record of that byte', () => {
    const {directory, segment, bytes} = filled();
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes);
      flipped[at] ^= 1 << (at % 8);
      writeFileSync(segment, flipped);
      const log = openLog(directory);
      const whole = ends.filter(end => end <= at).length;
      // A bit that changes how a page is compressed but not the page is no harm.
      if (log.position.txid === model.position.txid)
        expect(decodePages(readRecords(log)[whole])).toEqual(decodePages(records[whole]));
      else expect(log.position).toEqual(model.history[whole].position);
      log.close();
    }
  });

  test('that was durable is never cut: either the log opens with its records in place, or not at all', () => {
    const {directory, segment, bytes} = filled();
    const log = openLog(directory);
    log.sync();
    log.close();
    for (let at = 0; at < bytes.length; at += 3) {
      const flipped = Buffer.from(bytes);
      flipped[at] ^= 1 << (at % 8);
      writeFileSync(segment, flipped);
      try {
        const again = openLog(directory);
        expect(again.position).toEqual(model.position);
        again.close();
      } catch (error) {
        expect(error).toMatchObject({code: 'LOG_CORRUPT'});
      }
      expect(readFileSync(segment)).toEqual(flipped);
    }
  });

  test('does not matter when only its index is wrong', () => {
    const {directory} = filled();
    const index = join(directory, readdirSync(directory).find(name => name.endsWith('.ltxi')) ?? '');
    const bytes = readFileSync(index);
    for (let at = 0; at < bytes.length; at += 5) {
      const flipped = Buffer.from(bytes);
      flipped[at] ^= 1 << (at % 8);
      for (const content of [flipped, bytes.subarray(0, at)]) {
        writeFileSync(index, content);
        const log = openLog(directory, {verifyTail: at % 2 === 0});
        expect(readRecords(log)).toEqual(records);
        log.close();
      }
    }
  });
});

test('a record of an earlier life behind a shorter tail is not taken up again', () => {
  const directory = temporaryDirectory();
  const {records, model} = makeRecords(5, 3);
  const log = openLog(directory);
  log.append(records[0]);
  log.append(records[1]);
  log.cutAfter(toTxid(1n), nothing);
  model.rewind(1n);
  log.append(encodeRecord(model.change(makeRandom(5), 1), model.lockPgno));
  expect(log.position).toEqual(model.position);
  const copy = temporaryDirectory();
  cpSync(directory, copy, {recursive: true});
  const again = TransactionLog.open({
    disk: crashingDisk(1e9).disk,
    directory: copy,
    crc64,
    lockPgno: () => 9,
    verifyTail: true,
  });
  expect(again.position).toEqual(model.position);
});

function livesThrough(seed: number, kindOfDisk: typeof PowerLossDisk): void {
  const random = makeRandom(seed);
  let directory = temporaryDirectory();
  let model = new LogModel();
  for (let life = 0; life < 4; life++) {
    let callsLeft = random(120);
    const onCall = (name: string) => {
      if (callsLeft-- <= 0) throw new Crash(name);
    };
    const disk = new kindOfDisk(directory, {onCall});
    const states = runRandomly({disk, directory, random, model});
    directory = temporaryDirectory();
    disk.lose(directory, random);
    model = LogModel.match(states, openLog(directory));
  }
}

test('a loss of power at any call leaves every durable record, and nothing that is no record', () => {
  fc.assert(
    fc.property(fc.integer(), seed => livesThrough(seed, PowerLossDisk)),
    {numRuns: 60},
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
