import {setImmediate as turn} from 'node:timers/promises';
import type {
  Agreement,
  CatchUpChoice,
  DatabaseState,
  FuzzySnapshot,
  LogPart,
  ReplicationSource,
  SourceEvent,
} from '../../src/cluster/replication-source.ts';
import {PAYLOAD_SIZE_MAX} from '../../src/cluster/wire.ts';
import {EMPTY_POSITION, type Position, type Txid} from '../../src/ltx/position.ts';
import {compactRecords, encodeRecord, MemoryPages, type MemoryRecord, positionOf} from './memory-record.ts';

interface LogEntry {
  readonly record: MemoryRecord;
  readonly bytes: Uint8Array;
}

export interface SourceDatabase {
  readonly id: string;
  name: string;
  readonly pages: MemoryPages;
  log: LogEntry[];
  base: {position: Position; term: bigint};
  position: Position;
  term: bigint;
}

/** A primary's databases in memory. `commit` and the like act and tell at once, as an engine's events would. */
export class MemorySource implements ReplicationSource {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly term: bigint;
  readonly dropped = new Set<string>();
  readonly all = new Map<string, SourceDatabase>();
  needed: ReadonlyMap<string, Txid> = new Map();
  compactAfterCount = 8;
  snapshotCount = 0;
  catchUpCount = 0;
  /** Parts of logs and snapshots that were handed out and not closed. */
  openCount = 0;
  /** Bytes of records above which a copy is the cheapest. */
  cheapestBytesMax = Number.POSITIVE_INFINITY;
  /** Runs between the steps of a snapshot: writes that go on. */
  onSnapshotStep: (id: string) => void = () => {};
  readonly #listeners = new Set<(event: SourceEvent) => void>();

  constructor(options: {clusterId?: string; nodeId?: string; term?: bigint} = {}) {
    this.clusterId = options.clusterId ?? 'cluster-a';
    this.nodeId = options.nodeId ?? 'primary';
    this.term = options.term ?? 1n;
  }

  create(id: string, name: string, pageSize = 512): SourceDatabase {
    const pages = new MemoryPages(pageSize);
    const base = {position: EMPTY_POSITION, term: 0n};
    const database = {id, name, pages, log: [], base, position: EMPTY_POSITION, term: 0n};
    this.all.set(id, database);
    this.#emit({type: 'created', id, name});
    return database;
  }

  rename(id: string, name: string): void {
    this.get(id).name = name;
    this.#emit({type: 'renamed', id, name});
  }

  drop(id: string): void {
    const {name} = this.get(id);
    this.all.delete(id);
    this.dropped.add(id);
    this.#emit({type: 'dropped', id, name});
  }

  /** One transaction: `changes` by pgno, `commit` pages afterwards; pages that are new get a content of their own. */
  commit(id: string, changes: ReadonlyMap<number, Uint8Array>, commit: number): Position {
    const database = this.get(id);
    const {pages} = database;
    const written = new Map([...changes].filter(([pgno]) => pgno <= commit));
    for (let pgno = pages.count + 1; pgno <= commit; pgno++) {
      if (!written.has(pgno)) written.set(pgno, new Uint8Array(pages.pageSize).fill(pgno & 0xff));
    }
    const pre = database.position.checksum;
    for (const [pgno, page] of written) pages.set(pgno, page);
    pages.truncate(commit);
    const txid = positionOf(database.position.txid + 1n, pages.checksum);
    const record = {
      minTxid: txid.txid,
      maxTxid: txid.txid,
      pre,
      post: pages.checksum,
      term: this.term,
      commit,
      pageSize: pages.pageSize,
      pages: written,
    };
    const bytes = encodeRecord(record);
    database.log.push({record, bytes});
    database.position = txid;
    database.term = this.term;
    const event = {
      type: 'committed',
      id,
      position: txid,
      term: this.term,
      timestampMs: 1,
      size: bytes.length,
    } as const;
    this.#emit(bytes.length <= PAYLOAD_SIZE_MAX ? {...event, record: bytes} : event);
    return txid;
  }

  /** Forgets all but the last `keepCount` records. */
  prune(id: string, keepCount: number): void {
    const database = this.get(id);
    const cut = database.log.splice(0, Math.max(0, database.log.length - keepCount));
    const last = cut.at(-1)?.record;
    if (last !== undefined) database.base = {position: positionOf(last.maxTxid, last.post), term: last.term};
  }

  get(id: string): SourceDatabase {
    const database = this.all.get(id);
    if (database === undefined) throw new Error(`no database ${id}`);
    return database;
  }

  *databases(): Iterable<DatabaseState> {
    for (const id of this.all.keys()) {
      const state = this.database(id);
      if (state !== undefined) yield state;
    }
  }

  database(id: string): DatabaseState | undefined {
    const database = this.all.get(id);
    if (database === undefined) return undefined;
    const {name, position, term, pages} = database;
    return {id, name, position, term, pageSize: pages.pageSize, commit: pages.count};
  }

  droppedIds(): ReadonlySet<string> {
    return this.dropped;
  }

  onChange(listener: (event: SourceEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async agrees(id: string, position: Position, term: bigint): Promise<Agreement> {
    await turn();
    const database = this.all.get(id);
    if (database === undefined) return 'unknown';
    const {base, log} = database;
    if (position.txid < base.position.txid) return 'unknown';
    if (position.txid === base.position.txid) {
      return position.checksum === base.position.checksum && term === base.term ? 'yes' : 'no';
    }
    const record = log.find(entry => entry.record.maxTxid === position.txid)?.record;
    return record !== undefined && record.post === position.checksum && record.term === term ? 'yes' : 'no';
  }

  async catchUp(id: string, after: Txid, choice: CatchUpChoice): Promise<LogPart | undefined> {
    await turn();
    this.catchUpCount++;
    const database = this.all.get(id);
    if (database === undefined || after < database.base.position.txid) return undefined;
    const entries = database.log.filter(entry => entry.record.minTxid > after);
    if (entries.length === 0) return undefined;
    const logSize = entries.reduce((sum, entry) => sum + entry.bytes.length, 0);
    if (choice === 'cheapest' && logSize > this.cheapestBytesMax) return undefined;
    this.openCount++;
    const records = entries.map(entry => entry.record);
    const bytes =
      entries.length > this.compactAfterCount
        ? encodeRecord(compactRecords(records))
        : Buffer.concat(entries.map(entry => entry.bytes));
    return {
      minTxid: records[0].minTxid,
      maxTxid: records[records.length - 1].maxTxid,
      size: bytes.length,
      chunks: inChunks(bytes),
      close: async () => void this.openCount--,
    };
  }

  async snapshot(id: string): Promise<FuzzySnapshot | undefined> {
    await turn();
    this.snapshotCount++;
    const database = this.all.get(id);
    if (database === undefined || database.position.txid === 0n) return undefined;
    const {pages, position, term} = database;
    const pageCount = pages.count;
    const {pageSize} = pages;
    const run = Math.max(1, Math.floor(PAYLOAD_SIZE_MAX / pageSize));
    const onStep = () => this.onSnapshotStep(id);
    this.openCount++;
    async function* chunks() {
      for (let pgno = 1; pgno <= pageCount; pgno += run) {
        await turn();
        const count = Math.min(run, pageCount - pgno + 1);
        const parts = Array.from({length: count}, (_, index) => pages.get(pgno + index));
        yield {pgno, pages: new Uint8Array(Buffer.concat(parts))};
        onStep();
      }
    }
    return {
      from: position,
      fromTerm: term,
      pageSize,
      pageCount,
      chunks: chunks(),
      until: () => database.position,
      close: async () => void this.openCount--,
    };
  }

  setNeeded(needed: ReadonlyMap<string, Txid>): void {
    this.needed = needed;
  }

  #emit(event: SourceEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

async function* inChunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += PAYLOAD_SIZE_MAX) {
    await turn();
    yield bytes.subarray(at, at + PAYLOAD_SIZE_MAX);
  }
}
