import type {RecordWriter} from '../../log/record-writer.ts';
import type {PageHasher} from '../../ltx/checksum.ts';
import {xorChecksum} from '../../ltx/checksum.ts';
import {CHECKSUM_FLAG, type Checksum, toTxid} from '../../ltx/position.ts';
import type {DatabaseStore, StagedChecksums} from '../database-store.ts';

/** Where in the WAL a transaction stands: what a restart compares with the WAL that it finds. */
export interface WalPlace {
  readonly offset: number;
  readonly size: number;
  readonly salt1: number;
  readonly salt2: number;
}

/** What is to become a record. */
export interface TransactionPlan {
  readonly pageSize: number;
  /** Database size in pages afterwards. */
  readonly commit: number;
  /** Pages that may have changed, ascending, none above `commit`, not the lock page. Must hold every page that is new. */
  readonly pgnos: Iterable<number>;
  /** Fills `target` with the page's content as of this transaction. */
  readonly readPage: (pgno: number, target: Uint8Array) => void;
  readonly wal: WalPlace | undefined;
  readonly term: bigint;
  readonly timestampMs: number;
  readonly compress: boolean;
  readonly hasher: PageHasher;
  readonly lockPgno: number;
}

/** A record that is in the log's file, complete, and that nobody sees yet. */
export interface PreparedRecord {
  readonly writer: RecordWriter;
  readonly staged: StagedChecksums;
}

/** Work in slices: each `next()` does a few dozen pages' worth. */
export type Slices<Result> = Generator<void, Result, void>;

const PAGES_PER_SLICE = 32;
const PAGES_LOOKED_UP_PER_SLICE = 4096;

/**
 * Writes the record of a transaction into the log, unpublished. Pages whose content is what it was are left out;
 * where nothing is left and the size is the same there was no transaction: `undefined`.
 * An error (a full disk) leaves the log as it was.
 */
export function* prepareRecord(
  store: DatabaseStore,
  plan: TransactionPlan,
): Slices<PreparedRecord | undefined> {
  const {checksums} = store;
  const isSamePageSize = checksums.pageCount === 0 || checksums.pageSize === plan.pageSize;
  const countBefore = isSamePageSize ? checksums.pageCount : 0;
  const staged: StagedChecksums = {pageSize: plan.pageSize, commit: plan.commit, pgnos: [], checksums: []};
  const page = new Uint8Array(plan.pageSize);
  let writer: RecordWriter | undefined;
  let rolling: Checksum = isSamePageSize ? checksums.checksum : CHECKSUM_FLAG;
  let count = 0;
  try {
    for (const pgno of plan.pgnos) {
      if (++count % PAGES_PER_SLICE === 0) yield;
      plan.readPage(pgno, page);
      const checksum = plan.hasher.checksum(pgno, page);
      const before = pgno <= countBefore ? checksums.get(pgno) : 0n;
      if (before === checksum) continue;
      writer ??= beginRecord(store, plan);
      writer.encodePage(pgno, page);
      if (before !== 0n) rolling = xorChecksum(rolling, before);
      rolling = xorChecksum(rolling, checksum);
      staged.pgnos.push(pgno);
      staged.checksums.push(checksum);
    }
    for (let pgno = plan.commit + 1; pgno <= countBefore; pgno++) {
      if (pgno % PAGES_LOOKED_UP_PER_SLICE === 0) yield;
      const before = checksums.get(pgno);
      if (before !== 0n) rolling = xorChecksum(rolling, before);
    }
    if (writer === undefined && plan.commit === countBefore) return undefined;
    writer ??= beginRecord(store, plan);
    writer.finish(rolling);
    return {writer, staged};
  } catch (error) {
    writer?.abort();
    throw error;
  }
}

/**
 * After the page checksums were lost: computes them from all pages of `plan`, which must be those of the whole database,
 * and takes them over if they add up to the log's position. Returns whether they do; if not the table stays empty.
 */
export function* rebuildChecksums(store: DatabaseStore, plan: TransactionPlan): Slices<boolean> {
  const staged: StagedChecksums = {pageSize: plan.pageSize, commit: plan.commit, pgnos: [], checksums: []};
  const page = new Uint8Array(plan.pageSize);
  let rolling: Checksum = CHECKSUM_FLAG;
  for (const pgno of plan.pgnos) {
    if (staged.pgnos.length % PAGES_PER_SLICE === PAGES_PER_SLICE - 1) yield;
    plan.readPage(pgno, page);
    const checksum = plan.hasher.checksum(pgno, page);
    rolling = xorChecksum(rolling, checksum);
    staged.pgnos.push(pgno);
    staged.checksums.push(checksum);
  }
  if (rolling !== store.position.checksum) return false;
  store.adoptRebuilt(staged);
  return true;
}

function beginRecord(store: DatabaseStore, plan: TransactionPlan): RecordWriter {
  const txid = toTxid(store.position.txid + 1n);
  const {wal} = plan;
  return store.log.begin(
    {
      pageSize: plan.pageSize,
      commit: plan.commit,
      minTxid: txid,
      maxTxid: txid,
      timestampMs: plan.timestampMs,
      preApplyChecksum: txid === 1n ? 0n : store.position.checksum,
      walOffset: wal?.offset ?? 0,
      walSize: wal?.size ?? 0,
      walSalt1: wal?.salt1 ?? 0,
      walSalt2: wal?.salt2 ?? 0,
      nodeId: plan.term,
      noChecksum: false,
    },
    {compress: plan.compress},
  );
}
