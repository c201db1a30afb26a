import {PageHasher} from '../ltx/checksum.ts';
import type {Crc64, Crc64Factory} from '../ltx/crc64.ts';
import {LtxDecoder} from '../ltx/decoder.ts';
import {defaultLockPgno} from '../ltx/header.ts';
import {toTxid} from '../ltx/position.ts';
import type {LogEntry} from './log-entry.ts';
import type {PageChecksums} from './page-checksums.ts';
import type {TransactionLog} from './transaction-log.ts';

const LIST_COUNT_MAX = 256;

export interface ReplayOptions {
  readonly checksums: PageChecksums;
  readonly log: TransactionLog;
  readonly crc64: Crc64Factory;
  readonly lockPgno?: (pageSize: number) => number;
}

/** `current`: the table stands where the log does. `rebuild`: it can't be brought there and was cleared, set every page from the database. */
export type ReplayResult = 'current' | 'rebuild';

/**
 * Brings a table that was just opened up to the log's end, by setting the pages of all records after the table's durable
 * position. The rolling checksum is taken from the last record: summing up changes would need the entries as they were, and some
 * may be newer. `recompute` verifies it at leisure. Throws `LtxError` for a bad record.
 */
export function replayChecksums({
  checksums,
  log,
  crc64,
  lockPgno = defaultLockPgno,
}: ReplayOptions): ReplayResult {
  if (!isInLog(checksums, log)) {
    checksums.clear();
    return 'rebuild';
  }
  let txid = checksums.durablePosition.txid;
  if (txid === log.position.txid) return 'current';
  // Entries may be written before the next flush; for that the log must be durable.
  log.sync();
  const pageHasher = new PageHasher(crc64);
  const recordCrc64 = crc64.create();
  while (txid < log.position.txid) {
    const entries = log.entries(toTxid(txid + 1n), LIST_COUNT_MAX);
    for (const entry of entries) replayRecord({entry, checksums, log, pageHasher, recordCrc64, lockPgno});
    txid = entries.at(-1)?.maxTxid ?? log.position.txid;
  }
  checksums.adoptChecksum(log.position.checksum);
  return 'current';
}

/** Whether the table's durable position is one of this log: the same transaction, of the same term. */
function isInLog(checksums: PageChecksums, log: TransactionLog): boolean {
  if (checksums.state === 'missing') return false;
  const {txid, checksum} = checksums.durablePosition;
  const {base} = log;
  if (txid === base.position.txid)
    return checksum === base.position.checksum && checksums.durableTerm === base.term;
  const entry = log.entry(txid);
  return (
    entry?.maxTxid === txid && entry.postApplyChecksum === checksum && entry.term === checksums.durableTerm
  );
}

interface RecordReplay {
  readonly entry: LogEntry;
  readonly checksums: PageChecksums;
  readonly log: TransactionLog;
  readonly pageHasher: PageHasher;
  readonly recordCrc64: Crc64;
  readonly lockPgno: (pageSize: number) => number;
}

function replayRecord({entry, checksums, log, pageHasher, recordCrc64, lockPgno}: RecordReplay): void {
  const {pageSize} = entry;
  const decoder = new LtxDecoder({source: log.read(entry), crc64: recordCrc64, lockPgno: lockPgno(pageSize)});
  checksums.setPageSize(pageSize);
  for (let next = decoder.nextPage(); next !== undefined; next = decoder.nextPage()) {
    checksums.set(next.pgno, pageHasher.checksum(next.pgno, next.page));
  }
  decoder.close();
  checksums.resize(entry.commit);
}
