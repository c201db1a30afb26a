import {mkdtempSync, readdirSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach} from 'vitest';
import {Disk} from '../../src/lib/disk.ts';
import type {LogEntry} from '../../src/log/log-entry.ts';
import {TransactionLog, type TransactionLogOptions} from '../../src/log/transaction-log.ts';
import {PageHasher, xorChecksum} from '../../src/ltx/checksum.ts';
import {Crc64Factory} from '../../src/ltx/crc64.ts';
import {LtxEncoder} from '../../src/ltx/encoder.ts';
import type {LtxHeader} from '../../src/ltx/header.ts';
import {CHECKSUM_FLAG, type Checksum, type Position, toTxid} from '../../src/ltx/position.ts';
import type {ByteSource} from '../../src/ltx/record-reader.ts';

export const crc64 = await Crc64Factory.open();
const hasher = new PageHasher(crc64);
const recordCrc64 = crc64.create();

const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, {recursive: true, force: true});
});

export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ferrite-log-'));
  directories.push(directory);
  return directory;
}

/** A small generator whose whole state is its seed. Returns integers from 0 to `end` - 1. */
export type Random = (end: number) => number;

export function makeRandom(seed: number): Random {
  let state = seed >>> 0;
  return end => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % end;
  };
}

export interface ModelTransaction {
  readonly header: LtxHeader;
  /** Ascending. */
  readonly pages: readonly {readonly pgno: number; readonly page: Uint8Array}[];
  readonly postApplyChecksum: Checksum;
}

/** A database as plainly as can be: the checksums of its pages after each transaction. */
export class ModelDatabase {
  readonly pageSize: number;
  readonly lockPgno: number;
  /** Page checksums after each transaction; index 0 is the empty database. */
  readonly history: {readonly checksums: readonly bigint[]; readonly position: Position}[] = [
    {checksums: [], position: {txid: toTxid(0n), checksum: CHECKSUM_FLAG}},
  ];
  term = 1n;

  constructor(pageSize = 512, lockPgno = 9) {
    this.pageSize = pageSize;
    this.lockPgno = lockPgno;
  }

  get position(): Position {
    return this.history[this.history.length - 1].position;
  }

  /** Makes the next transaction: changes some pages, and grows or shrinks the database to `commit` pages. */
  change(random: Random, commit: number): ModelTransaction {
    const before = this.history[this.history.length - 1];
    const checksums = before.checksums.slice(0, commit);
    const pages: {pgno: number; page: Uint8Array}[] = [];
    for (let pgno = 1; pgno <= commit; pgno++) {
      const isNew = pgno > before.checksums.length;
      if (pgno === this.lockPgno) {
        checksums[pgno - 1] = 0n;
        continue;
      }
      if (!isNew && random(commit) > 2 && before.position.txid !== 0n) continue;
      const page = new Uint8Array(this.pageSize).fill(random(256));
      page[random(this.pageSize)] ^= 1 + random(255);
      pages.push({pgno, page});
      checksums[pgno - 1] = hasher.checksum(pgno, page);
    }
    const postApplyChecksum = checksums.reduce<Checksum>(
      (sum, value) => xorChecksum(sum, value as Checksum),
      CHECKSUM_FLAG,
    );
    const txid = toTxid(before.position.txid + 1n);
    const header: LtxHeader = {
      pageSize: this.pageSize,
      commit,
      minTxid: txid,
      maxTxid: txid,
      timestampMs: 1_000 * Number(txid),
      preApplyChecksum: txid === 1n ? 0n : before.position.checksum,
      walOffset: 32 + Number(txid),
      walSize: 77,
      walSalt1: 0xfedc_ba98,
      walSalt2: 7,
      nodeId: this.term,
      noChecksum: false,
    };
    this.history.push({checksums, position: {txid, checksum: postApplyChecksum}});
    return {header, pages, postApplyChecksum};
  }

  /** Forgets what came after `txid`. */
  rewind(txid: bigint): void {
    this.history.length = Number(txid) + 1;
  }
}

export function encodeRecord(transaction: ModelTransaction, lockPgno: number): Uint8Array {
  const chunks: Buffer[] = [];
  const write = (chunk: Uint8Array) => void chunks.push(Buffer.from(chunk));
  const encoder = new LtxEncoder({
    header: transaction.header,
    crc64: recordCrc64,
    compress: true,
    lockPgno,
    write,
  });
  for (const {pgno, page} of transaction.pages) encoder.encodePage(pgno, page);
  encoder.close(transaction.postApplyChecksum);
  return new Uint8Array(Buffer.concat(chunks));
}

/** `count` records of a database that is never large. */
export function makeRecords(
  seed: number,
  count: number,
): {readonly records: Uint8Array[]; readonly model: ModelDatabase} {
  const random = makeRandom(seed);
  const model = new ModelDatabase();
  const records: Uint8Array[] = [];
  for (let index = 0; index < count; index++)
    records.push(encodeRecord(model.change(random, 1 + random(12)), model.lockPgno));
  return {records, model};
}

export function openLog(directory: string, options: Partial<TransactionLogOptions> = {}): TransactionLog {
  return TransactionLog.open({
    disk: new Disk(),
    directory,
    crc64,
    lockPgno: () => 9,
    verifyTail: true,
    ...options,
  });
}

export function readAll(source: ByteSource): Uint8Array {
  const bytes = new Uint8Array(source.size);
  const count = source.read(0, bytes);
  return bytes.subarray(0, count);
}

/** All records that the log holds. */
export function readRecords(log: TransactionLog): Uint8Array[] {
  return log.entries(toTxid(0n), 1_000_000).map(entry => readAll(log.read(entry)));
}

/** Writes a transaction as the primary does. */
export function writeTransaction(log: TransactionLog, transaction: ModelTransaction): LogEntry {
  const writer = log.begin(transaction.header, {compress: true});
  for (const {pgno, page} of transaction.pages) writer.encodePage(pgno, page);
  return writer.commit(transaction.postApplyChecksum);
}

/** A log of `count` records in segments of about `segmentBytesMax` bytes. */
export function filledLog(count: number, segmentBytesMax = 1500) {
  const directory = temporaryDirectory();
  const {records, model} = makeRecords(count, count);
  const log = openLog(directory, {segmentBytesMax});
  for (const record of records) log.append(record);
  return {directory, log, records, model};
}

/** Names of the segment files, in order. */
export const segmentNames = (directory: string) =>
  readdirSync(directory).filter(name => name.endsWith('.ltxs'));

/** Thrown by `crashingDisk` at its call, and at every call after it: a dead process does nothing more. */
export class Crash extends Error {}

export function crashingDisk(callIndex: number): {readonly disk: Disk; readonly calls: string[]} {
  const calls: string[] = [];
  const onCall = (name: string) => {
    calls.push(name);
    if (calls.length > callIndex) throw new Crash(name);
  };
  return {disk: new Disk({onCall}), calls};
}
