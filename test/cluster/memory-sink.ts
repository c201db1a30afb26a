import type {LargeInfo, LargeTransfer, ReplicationSink} from '../../src/cluster/replication-sink.ts';
import type {DatabaseState} from '../../src/cluster/replication-source.ts';
import type {RewindReason} from '../../src/cluster/wire.ts';
import {EMPTY_POSITION, type Position} from '../../src/ltx/position.ts';
import {decodeRecords, MemoryPages, type MemoryRecord, positionOf, RecordError} from './memory-record.ts';

export interface SinkDatabase {
  readonly id: string;
  name: string;
  pages: MemoryPages;
  position: Position;
  term: bigint;
}

/** A follower's databases in memory. It checks what it is asked to do and notes what it should not have been asked. */
export class MemorySink implements ReplicationSink {
  readonly nodeId: string;
  cluster: string | undefined;
  highestTerm = 0n;
  readonly all = new Map<string, SinkDatabase>();
  readonly orphans = new Map<string, SinkDatabase>();
  readonly rewinds: {id: string; reason: RewindReason; position: Position}[] = [];
  readonly applied: string[] = [];
  readonly dropped: string[] = [];
  readonly violations: string[] = [];
  heardMs = 0;
  openTransferCount = 0;
  /** Runs before each step; may wait, or throw in its place. */
  onStep: (what: string, id: string) => Promise<void> = async () => {};
  readonly #busy = new Set<string>();

  constructor(options: {nodeId?: string; clusterId?: string} = {}) {
    this.nodeId = options.nodeId ?? 'follower';
    this.cluster = options.clusterId;
  }

  clusterId(): string | undefined {
    return this.cluster;
  }

  async adoptCluster(clusterId: string): Promise<void> {
    this.cluster = clusterId;
  }

  termSeen(): bigint {
    return this.highestTerm;
  }

  async adoptTerm(term: bigint): Promise<void> {
    this.highestTerm = term;
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

  async create(id: string, name: string): Promise<void> {
    await this.#exclusive('create', id, () => {
      if (this.all.has(id)) this.violations.push(`create of existing ${id}`);
      this.#checkFree(name);
      this.all.set(id, {id, name, pages: new MemoryPages(512), position: EMPTY_POSITION, term: 0n});
    });
  }

  async rename(id: string, name: string): Promise<void> {
    await this.#exclusive('rename', id, () => {
      this.#checkFree(name);
      this.get(id).name = name;
    });
  }

  async drop(id: string): Promise<void> {
    await this.#exclusive('drop', id, () => {
      this.dropped.push(id);
      this.all.delete(id);
    });
  }

  async orphan(id: string): Promise<void> {
    await this.#exclusive('orphan', id, () => {
      this.orphans.set(id, this.get(id));
      this.all.delete(id);
    });
  }

  async apply(id: string, bytes: Uint8Array, signal: AbortSignal): Promise<Position> {
    return await this.#exclusive(
      'apply',
      id,
      () => {
        for (const record of decodeRecords(bytes)) {
          const database = this.get(id);
          if (record.minTxid !== database.position.txid + 1n || record.pre !== database.position.checksum) {
            throw new RecordError('POSITION_MISMATCH', `${record.minTxid} on ${database.position.txid}`);
          }
          this.#applyTo(database, database.pages.clone(), record);
        }
        this.applied.push(id);
        return this.get(id).position;
      },
      signal,
    );
  }

  async rewind(id: string, reason: RewindReason): Promise<void> {
    await this.#exclusive('rewind', id, () => {
      this.rewinds.push({id, reason, position: this.get(id).position});
    });
  }

  async beginLarge(id: string, info: LargeInfo, signal: AbortSignal): Promise<LargeTransfer> {
    return await this.#exclusive('begin', id, () => {
      this.openTransferCount++;
      const pages = new Map<number, Uint8Array>();
      const chunks: Uint8Array[] = [];
      return {
        writePages: async (pgno, bytes) =>
          await this.#exclusive('pages', id, () => {
            if (info.kind !== 'snapshot') throw new Error('pages in a record');
            for (let at = 0; at < bytes.length; at += info.pageSize) {
              pages.set(pgno + at / info.pageSize, bytes.slice(at, at + info.pageSize));
            }
          }),
        writeRecord: async chunk =>
          await this.#exclusive('chunk', id, () => {
            chunks.push(chunk.slice());
          }),
        finish: async () => {
          this.openTransferCount--;
          return await this.#exclusive(
            'finish',
            id,
            () => this.#finish(id, info, pages, Buffer.concat(chunks)),
            signal,
          );
        },
        abort: async () => {
          this.openTransferCount--;
        },
      };
    });
  }

  primaryHeard(timestampMs: number): void {
    this.heardMs = timestampMs;
  }

  get(id: string): SinkDatabase {
    const database = this.all.get(id);
    if (database === undefined) throw new RecordError('NOT_FOUND', `no database ${id}`);
    return database;
  }

  #finish(
    id: string,
    info: LargeInfo,
    pages: ReadonlyMap<number, Uint8Array>,
    records: Uint8Array,
  ): Position {
    const database = this.get(id);
    if (info.kind === 'record' && records.length !== info.size)
      throw new RecordError('LTX_SIZE', 'wrong size');
    let content = database.pages.clone();
    let base = database.position;
    let term = database.term;
    if (info.kind === 'snapshot') {
      content = new MemoryPages(info.pageSize);
      for (let pgno = 1; pgno <= info.pageCount; pgno++)
        content.set(pgno, pages.get(pgno) ?? new Uint8Array(0));
      base = info.from;
      term = info.fromTerm;
    }
    const scratch = {id, name: database.name, pages: content, position: base, term};
    for (const record of decodeRecords(records)) {
      if (record.minTxid !== scratch.position.txid + 1n || record.pre !== scratch.position.checksum) {
        throw new RecordError('POSITION_MISMATCH', 'a transfer that does not follow on');
      }
      this.#write(scratch.pages, record);
      scratch.position = positionOf(record.maxTxid, record.post);
      scratch.term = record.term;
    }
    if (scratch.pages.checksum !== scratch.position.checksum)
      throw new RecordError('LTX_CHECKSUM', 'wrong content');
    database.pages = scratch.pages;
    database.position = scratch.position;
    database.term = scratch.term;
    this.applied.push(id);
    return database.position;
  }

  #applyTo(database: SinkDatabase, pages: MemoryPages, record: MemoryRecord): void {
    this.#write(pages, record);
    if (pages.checksum !== record.post) throw new RecordError('LTX_CHECKSUM', 'wrong content');
    database.pages = pages;
    database.position = positionOf(record.maxTxid, record.post);
    database.term = record.term;
  }

  #write(pages: MemoryPages, record: MemoryRecord): void {
    pages.pageSize = record.pageSize;
    for (const [pgno, page] of record.pages) pages.set(pgno, page);
    pages.truncate(record.commit);
  }

  #checkFree(name: string): void {
    for (const other of this.all.values())
      if (other.name === name) this.violations.push(`name taken: ${name}`);
  }

  async #exclusive<T>(what: string, id: string, run: () => T, signal?: AbortSignal): Promise<T> {
    if (this.#busy.has(id)) this.violations.push(`${what} of ${id} while another call runs`);
    this.#busy.add(id);
    try {
      await untilAborted(this.onStep(what, id), signal);
      return run();
    } finally {
      this.#busy.delete(id);
    }
  }
}

/** Settles as `step` does, or rejects when the signal aborts before that. */
async function untilAborted(step: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return await step;
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => reject(new RecordError('ABORTED', 'the stream has ended'));
    signal.addEventListener('abort', onAbort, {once: true});
    step.finally(() => signal.removeEventListener('abort', onAbort)).then(resolve, reject);
  });
}
