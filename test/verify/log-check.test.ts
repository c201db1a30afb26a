import {rmSync, truncateSync} from 'node:fs';
import {join} from 'node:path';
import {expect, test} from 'vitest';
import {Disk} from '../../src/lib/disk.ts';
import {EMPTY_BASE, writeLogBase} from '../../src/log/log-base.ts';
import {toTxid} from '../../src/ltx/position.ts';
import type {Finding} from '../../src/verify/finding.ts';
import {InputFolder} from '../../src/verify/input-folder.ts';
import type {LeftBehind} from '../../src/verify/left-behind.ts';
import {checkLog} from '../../src/verify/log-check.ts';
import {makeRecordTools} from '../../src/verify/segment-check.ts';
import {crc64, encodeRecord, filledLog, makeRandom, segmentNames} from '../log/support.ts';

function check(directory: string, left: LeftBehind = 'closed') {
  const found: Finding[] = [];
  const seen: bigint[] = [];
  const lost: (bigint | undefined)[] = [];
  const visitor = {
    begin: () => undefined,
    wantsPages: () => false,
    record: ({maxTxid}: {maxTxid: bigint}) => void seen.push(maxTxid),
    lost: (upTo: bigint | undefined) => void lost.push(upTo),
  };
  const folder = new InputFolder(new Disk(), directory);
  const checking = checkLog({folder, path: '.', left, tools: makeRecordTools(crc64, () => 9), visitor});
  for (;;) {
    const step = checking.next();
    if (step.done === true)
      return {found, seen, lost, end: step.value, codes: found.map(({level, code}) => `${level} ${code}`)};
    found.push(step.value);
  }
}

function closedLog(count: number) {
  const filled = filledLog(count);
  filled.log.sync();
  return filled;
}

test('checkLog() reads every record of every segment', () => {
  const {directory, log} = closedLog(40);
  log.close();
  expect(segmentNames(directory).length).toBeGreaterThan(5);
  const {codes, seen, end} = check(directory);
  expect(codes).toEqual([]);
  expect(seen).toEqual([...Array(40).keys()].map(index => BigInt(index + 1)));
  expect(end).toMatchObject({position: log.position, isBroken: false});
});

test('checkLog() accepts what retention and a cut leave', () => {
  const {directory, log} = closedLog(40);
  log.prune({keepFrom: toTxid(20n), olderThanMs: 1, nowMs: 1_000_000});
  log.cutAfter(toTxid(33n), () => undefined);
  log.close();
  const {codes, seen, end} = check(directory);
  expect(codes).toEqual([]);
  expect(seen.at(-1)).toBe(33n);
  expect(end.position?.txid).toBe(33n);
});

test('checkLog() finds a missing segment, and goes on behind it', () => {
  const {directory, log} = closedLog(40);
  log.close();
  const [, , third, fourth] = segmentNames(directory);
  rmSync(join(directory, third));
  const {codes, lost, seen, end} = check(directory);
  expect(codes).toEqual(['note LOG_UNFINISHED', 'violation LOG_GAP']);
  expect(lost).toEqual([BigInt(`0x${fourth.slice(0, 16)}`) - 1n]);
  expect(seen.at(-1)).toBe(40n);
  expect(end.isBroken).toBe(true);
});

test('checkLog() goes on behind a segment that is cut short', () => {
  const {directory, log} = closedLog(40);
  log.close();
  const [first, second] = segmentNames(directory);
  truncateSync(join(directory, first), 700);
  const {codes, seen} = check(directory, 'daemon-died');
  expect(codes[0]).toBe('violation LOG_RECORD_CORRUPT');
  expect(seen).toContain(BigInt(`0x${second.slice(0, 16)}`));
  expect(seen.at(-1)).toBe(40n);
});

test('checkLog() finds a term that falls', () => {
  const {directory, log, model} = closedLog(5);
  model.term = 7n;
  log.append(encodeRecord(model.change(makeRandom(1), 4), model.lockPgno));
  model.term = 6n;
  log.append(encodeRecord(model.change(makeRandom(2), 4), model.lockPgno));
  log.sync();
  log.close();
  expect(check(directory).codes).toEqual(['violation LOG_TERM_FELL']);
});

test('checkLog() takes an interrupted change as carried out', () => {
  const {directory, log} = closedLog(40);
  const kept = log.entry(toTxid(12n));
  log.close();
  rmSync(join(directory, 'synced'));
  const intent = {
    kind: 'cut',
    after: toTxid(12n),
    segmentSize: (kept?.offset ?? 0) + (kept?.size ?? 0),
  } as const;
  writeLogBase(new Disk(), directory, EMPTY_BASE, intent);
  const cut = check(directory, 'daemon-died');
  expect(cut.codes).toEqual(['note LOG_UNFINISHED']);
  expect(cut.seen.at(-1)).toBe(12n);
  writeLogBase(new Disk(), directory, EMPTY_BASE, {kind: 'reset'});
  expect(check(directory, 'daemon-died')).toMatchObject({codes: ['note LOG_UNFINISHED'], seen: []});
});
