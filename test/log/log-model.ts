import {expect} from 'vitest';
import type {Disk} from '../../src/lib/disk.ts';
import type {LogBase} from '../../src/log/log-base.ts';
import type {TransactionLog} from '../../src/log/transaction-log.ts';
import {CHECKSUM_FLAG, type Position, toTxid} from '../../src/ltx/position.ts';
import {Crash, encodeRecord, ModelDatabase, openLog, type Random, readRecords} from './support.ts';

const EMPTY: LogBase = {position: {txid: toTxid(0n), checksum: CHECKSUM_FLAG}, term: 0n};

/** What a log should hold: `records[0]` is that of the transaction after the base. */
export class LogModel {
  readonly base: LogBase;
  readonly records: readonly Uint8Array[];
  /** Number of records that a loss of power may not take. */
  readonly durableCount: number;
  readonly database: ModelDatabase;

  constructor(
    base = EMPTY,
    records: readonly Uint8Array[] = [],
    durableCount = 0,
    database = new ModelDatabase(),
  ) {
    this.base = base;
    this.records = records;
    this.durableCount = durableCount;
    this.database = database;
  }

  with(change: Partial<Pick<LogModel, 'base' | 'records' | 'durableCount'>>): LogModel {
    const {base, records, durableCount} = {...this, ...change};
    return new LogModel(base, records, Math.min(durableCount, records.length), this.database);
  }

  /** Whether `found`, on `base`, may be what is left of this after a loss of power. */
  allows(base: LogBase, found: readonly Uint8Array[]): boolean {
    if (base.position.txid !== this.base.position.txid || base.term !== this.base.term) return false;
    if (found.length < this.durableCount || found.length > this.records.length) return false;
    return found.every((record, index) => Buffer.compare(record, this.records[index]) === 0);
  }

  /** Checks that `log` is what is left of one of `states`, and returns that. Closes the log. */
  static match(states: readonly LogModel[], log: TransactionLog): LogModel {
    const found = readRecords(log);
    const {base, position} = log;
    log.close();
    const match = states.find(state => state.allows(base, found));
    expect(match, `${found.length} records from ${base.position.txid} on`).toBeDefined();
    const model = (match ?? states[0]).with({records: found});
    expect(position).toEqual(model.positionAfter(found.length));
    model.database.rewind(position.txid);
    return new LogModel(base, found, model.durableCount, model.database);
  }

  positionAfter(count: number): Position {
    return this.database.history[Number(this.base.position.txid) + count].position;
  }
}

interface Run {
  readonly disk: Disk;
  readonly directory: string;
  readonly random: Random;
  readonly model: LogModel;
}

/** Changes a log at random until the disk crashes or enough is done. Returns the states that it may be in, if all were written. */
export function runRandomly({disk, directory, random, model}: Run): readonly LogModel[] {
  let states = [model];
  try {
    const log = openLog(directory, {disk, segmentBytesMax: 800 + random(1500)});
    for (let step = 0; step < 40; step++) {
      const current = states[states.length - 1];
      const {next, run} = randomStep(log, current, random);
      states = [current, next];
      run();
      states = [next];
    }
    log.close();
  } catch (error) {
    if (!(error instanceof Crash)) throw error;
  }
  return states;
}

function randomStep(log: TransactionLog, model: LogModel, random: Random): {next: LogModel; run: () => void} {
  const kind = random(20);
  const {records, database} = model;
  if (kind === 0) {
    const count = random(records.length + 1);
    const position = model.positionAfter(count);
    const run = () => {
      log.cutAfter(position.txid, () => {});
      database.rewind(position.txid);
    };
    return {next: model.with({records: records.slice(0, count)}), run};
  }
  if (kind === 1) {
    const keepFrom = toTxid(model.base.position.txid + BigInt(random(records.length + 1)));
    const rules = {keepFrom, olderThanMs: 0, nowMs: 1e9};
    const dropped = countDropped(log, keepFrom);
    if (dropped === 0) return {next: model, run: () => void log.prune(rules)};
    const base = {position: model.positionAfter(dropped), term: database.term};
    const durableCount = records.length - dropped;
    return {
      next: new LogModel(base, records.slice(dropped), Math.max(0, model.durableCount - dropped), database),
      run: () => expect([log.prune(rules) > 0, durableCount]).toEqual([true, records.length - dropped]),
    };
  }
  if (kind <= 4) return {next: model.with({durableCount: records.length}), run: () => log.sync()};
  const transaction = database.change(random, 1 + random(12));
  const record = encodeRecord(transaction, database.lockPgno);
  const run = () => {
    if (random(2) === 0) {
      log.append(record);
      return;
    }
    const writer = log.begin(transaction.header, {compress: true});
    for (const {pgno, page} of transaction.pages) writer.encodePage(pgno, page);
    writer.finish(transaction.postApplyChecksum);
    writer.publish();
  };
  return {next: model.with({records: [...records, record]}), run};
}

/** How many records `prune` must drop: whole segments, of which no record is needed, but never the last. */
function countDropped(log: TransactionLog, keepFrom: bigint): number {
  const entries = log.entries(toTxid(0n), 1_000_000);
  const last = entries.at(-1);
  const needed = new Set(
    entries.filter(entry => entry.maxTxid >= keepFrom || entry === last).map(entry => entry.segment),
  );
  if (last !== undefined) needed.add(last.segment);
  const first = entries.findIndex(entry => needed.has(entry.segment));
  return Math.max(0, first);
}
