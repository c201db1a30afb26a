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
  /** `pgnos` are all pages of the database. */
  readonly isWhole?: boolean;
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

/** What a record's header is made of. */
export type RecordHead = Pick<
  TransactionPlan,
  'pageSize' | 'commit' | 'wal' | 'term' | 'timestampMs' | 'compress' | 'hasher'
>;

/** One record on its way into the log, unpublished: begun with the first page that differs from what it was. */
export class RecordBuild {
  /** Size of the database in pages before, as far as its pages count for this record. */
  readonly countBefore: number;
  readonly #store: DatabaseStore;
  readonly #head: RecordHead;
  readonly #staged: StagedChecksums;
  #rolling: Checksum;
  #writer: RecordWriter | undefined;

  constructor(store: DatabaseStore, head: RecordHead) {
    const {checksums} = store;
    const isSamePageSize = checksums.pageCount === 0 || checksums.pageSize === head.pageSize;
    this.countBefore = isSamePageSize ? checksums.pageCount : 0;
    this.#store = store;
    this.#head = head;
    this.#staged = {pageSize: head.pageSize, commit: head.commit, pgnos: [], checksums: []};
    this.#rolling = isSamePageSize ? checksums.checksum : CHECKSUM_FLAG;
  }

  /** Adds a page, which is copied, unless it is what it was. In ascending order. */
  add(pgno: number, page: Uint8Array): void {
    const checksum = this.#head.hasher.checksum(pgno, page);
    const before = pgno <= this.countBefore ? this.#store.checksums.get(pgno) : 0n;
    if (before === checksum) return;
    this.#writer ??= beginRecord(this.#store, this.#head);
    this.#writer.encodePage(pgno, page);
    if (before !== 0n) this.#rolling = xorChecksum(this.#rolling, before);
    this.#rolling = xorChecksum(this.#rolling, checksum);
    this.#staged.pgnos.push(pgno);
    this.#staged.checksums.push(checksum);
  }

  /** The database ends before this page now. */
  takeAway(pgno: number): void {
    const before = this.#store.checksums.get(pgno);
    if (before !== 0n) this.#rolling = xorChecksum(this.#rolling, before);
  }

  /** The complete record, or undefined where nothing is different. */
  finish(): PreparedRecord | undefined {
    if (this.#writer === undefined && this.#head.commit === this.countBefore) return undefined;
    this.#writer ??= beginRecord(this.#store, this.#head);
    this.#writer.finish(this.#rolling);
    return {writer: this.#writer, staged: this.#staged};
  }

  /** Leaves the log as it was. */
  abort(): void {
    this.#writer?.abort();
  }
}

/**
 * Writes the record of a transaction into the log, unpublished. Pages whose content is what it was are left out;
 * where nothing is left and the size is the same there was no transaction: `undefined`.
 * An error (a full disk) leaves the log as it was.
 */
export function* prepareRecord(
  store: DatabaseStore,
  plan: TransactionPlan,
): Slices<PreparedRecord | undefined> {
  const build = new RecordBuild(store, plan);
  const page = new Uint8Array(plan.pageSize);
  let count = 0;
  try {
    for (const pgno of plan.pgnos) {
      if (++count % PAGES_PER_SLICE === 0) yield;
      plan.readPage(pgno, page);
      build.add(pgno, page);
    }
    for (let pgno = plan.commit + 1; pgno <= build.countBefore; pgno++) {
      if (pgno % PAGES_LOOKED_UP_PER_SLICE === 0) yield;
      build.takeAway(pgno);
    }
    return build.finish();
  } catch (error) {
    build.abort();
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

function beginRecord(store: DatabaseStore, plan: RecordHead): RecordWriter {
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
