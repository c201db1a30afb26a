import {type FileHandle, open, readdir, rm} from 'node:fs/promises';
import {basename, dirname, join} from 'node:path';
import {Worker} from 'node:worker_threads';
import type {FsClient} from '../engine/client/fs-client.ts';
import type {CompactWorkerData} from '../engine/compact-worker.ts';
import type {DatabaseInfo, FsEvent, LocatedEntry} from '../engine/messages.ts';
import {EMPTY_POSITION, type Position, type Txid, toTxid} from '../ltx/position.ts';
import type {
  Agreement,
  CatchUpChoice,
  DatabaseState,
  FuzzySnapshot,
  LogPart,
  ReplicationSource,
  SourceEvent,
} from './replication-source.ts';
import {SnapshotStream} from './snapshot-stream.ts';

export interface EngineSourceOptions {
  readonly fs: FsClient;
  readonly clusterId: string;
  readonly nodeId: string;
  readonly term: bigint;
  readonly databases: readonly DatabaseInfo[];
  readonly dropped: readonly string[];
  readonly compress: boolean;
  readonly pendingByte: number | undefined;
  /** Where temporary files go; their names begin with this. */
  readonly temporaryPrefix: string;
}

const ENTRIES_MAX = 50_000;
/** Up to so many bytes the records go out as they stand. */
const VERBATIM_BYTES_MAX = 4 * 1024 * 1024;
const CHUNK_BYTES_MAX = 256 * 1024;
const TOMBSTONES_MAX = 10_000;

/** The databases that this node captures, as the followers' streams see them: state mirrored from the fs thread's events. */
export class EngineSource implements ReplicationSource {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly term: bigint;
  readonly #options: EngineSourceOptions;
  readonly #databases = new Map<string, DatabaseState>();
  readonly #dropped: Set<string>;
  readonly #listeners = new Set<(event: SourceEvent) => void>();
  readonly #snapshots = new Map<number, SnapshotStream>();
  #needed: ReadonlyMap<string, Txid> = new Map();
  #temporaryCount = 0;

  constructor(options: EngineSourceOptions) {
    this.#options = options;
    this.clusterId = options.clusterId;
    this.nodeId = options.nodeId;
    this.term = options.term;
    for (const database of options.databases) this.#databases.set(database.id, database);
    this.#dropped = new Set(options.dropped);
  }

  /** Up to which transaction every connected follower has each database. */
  get needed(): ReadonlyMap<string, Txid> {
    return this.#needed;
  }

  databases(): Iterable<DatabaseState> {
    return this.#databases.values();
  }

  database(id: string): DatabaseState | undefined {
    return this.#databases.get(id);
  }

  droppedIds(): ReadonlySet<string> {
    return this.#dropped;
  }

  onChange(listener: (event: SourceEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  setNeeded(needed: ReadonlyMap<string, Txid>): void {
    this.#needed = needed;
  }

  async agrees(id: string, position: Position, term: bigint): Promise<Agreement> {
    return (await this.#options.fs.ask<'agrees'>({kind: 'agrees', id, position, term})).agreement;
  }

  async catchUp(
    id: string,
    after: Txid,
    choice: CatchUpChoice,
    signal: AbortSignal,
  ): Promise<LogPart | undefined> {
    const {entries} = await this.#options.fs.ask<'entries'>({
      kind: 'entries',
      id,
      after,
      countMax: ENTRIES_MAX,
    });
    const [first] = entries ?? [];
    const last = entries?.at(-1);
    if (
      entries === undefined ||
      first === undefined ||
      last === undefined ||
      first.entry.minTxid !== toTxid(after + 1n)
    )
      return undefined;
    const {maxTxid} = last.entry;
    const {minTxid} = first.entry;
    const size = entries.reduce((sum, {entry}) => sum + entry.size, 0);
    // A log that is longer than the database costs more than a copy of that. Who has nothing needs every page anyway: then
    // compacting the log is worth while only where it is much shorter.
    const isLong = size > VERBATIM_BYTES_MAX && size > this.#sizeOf(id) / (after === 0n ? 4 : 1);
    if (choice === 'cheapest' && isLong) return undefined;
    if (size <= VERBATIM_BYTES_MAX || entries.length === 1) {
      const chunks = readEntries(entries);
      return {minTxid, maxTxid, size, chunks, close: async () => void (await chunks.return())};
    }
    const {handle, size: compactedSize} = await this.#compact(entries, signal);
    const chunks = readPart(handle, 0, compactedSize);
    const close = async () => {
      await chunks.return();
      await handle.close();
    };
    return {minTxid, maxTxid, size: compactedSize, chunks, close};
  }

  async snapshot(id: string, signal: AbortSignal): Promise<FuzzySnapshot | undefined> {
    const {fs} = this.#options;
    const request = fs.nextRequest();
    const stream = new SnapshotStream(
      () => fs.send({type: 'snapshot-more', request}),
      () => {
        fs.send({type: 'snapshot-end', request});
        this.#snapshots.delete(request);
      },
    );
    this.#snapshots.set(request, stream);
    fs.send({type: 'snapshot', request, id});
    return await stream.started(signal);
  }

  /** Takes an event of the fs thread; those that concern followers go on to the streams. */
  hear(event: FsEvent): void {
    switch (event.type) {
      case 'created':
        this.#databases.set(event.id, {
          id: event.id,
          name: event.name,
          position: EMPTY_POSITION,
          term: 0n,
          pageSize: 0,
          commit: 0,
        });
        this.#emit({type: 'created', id: event.id, name: event.name});
        return;
      case 'renamed':
        this.#update(event.id, {name: event.name});
        this.#emit({type: 'renamed', id: event.id, name: event.name});
        return;
      case 'dropped':
        this.#databases.delete(event.id);
        this.#bury(event.id);
        this.#emit({type: 'dropped', id: event.id, name: event.name});
        return;
      case 'committed':
        this.#committed(event);
        return;
      case 'snapshot-start':
      case 'snapshot-pages':
      case 'snapshot-done':
        this.#snapshots.get(event.request)?.hear(event);
        return;
      default:
        return;
    }
  }

  #committed({id, entry, record}: Extract<FsEvent, {type: 'committed'}>): void {
    const position = {txid: entry.maxTxid, checksum: entry.postApplyChecksum};
    this.#update(id, {position, term: entry.term, pageSize: entry.pageSize, commit: entry.commit});
    const {term, timestampMs, size} = entry;
    this.#emit({
      type: 'committed',
      id,
      position,
      term,
      timestampMs,
      size,
      ...(record === undefined ? {} : {record}),
    });
  }

  #sizeOf(id: string): number {
    const database = this.#databases.get(id);
    return database === undefined ? 0 : database.pageSize * database.commit;
  }

  #update(id: string, change: Partial<DatabaseState>): void {
    const before = this.#databases.get(id);
    if (before !== undefined) this.#databases.set(id, {...before, ...change});
  }

  #bury(id: string): void {
    this.#dropped.add(id);
    const [oldest] = this.#dropped;
    if (this.#dropped.size > TOMBSTONES_MAX && oldest !== undefined) this.#dropped.delete(oldest);
  }

  #emit(event: SourceEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Nothing is left of it under any name: the result lives as long as its handle. */
  async #compact(
    entries: readonly LocatedEntry[],
    signal: AbortSignal,
  ): Promise<{handle: FileHandle; size: number}> {
    signal.throwIfAborted();
    const {compress, pendingByte} = this.#options;
    const temporaryPrefix = `${this.#options.temporaryPrefix}${++this.#temporaryCount}`;
    const workerData: CompactWorkerData = {
      records: entries.map(({entry, path}) => ({path, offset: entry.offset, size: entry.size})),
      compress,
      pendingByte,
      temporaryPrefix,
    };
    const worker = new Worker(new URL('../engine/compact-worker.js', import.meta.url), {workerData});
    const stop = () => void worker.terminate();
    signal.addEventListener('abort', stop, {once: true});
    try {
      const {path, size} = await new Promise<{path: string; size: number}>((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
        worker.once('exit', () => reject(new Error('Cannot compact records: stopped')));
      });
      return {handle: await open(path, 'r'), size};
    } finally {
      signal.removeEventListener('abort', stop);
      await removeByPrefix(`${temporaryPrefix}.`);
    }
  }
}

/** Records as they stand in the segments, back to back. A segment that was dropped meanwhile fails the transfer, which is asked for again. */
async function* readEntries(entries: readonly LocatedEntry[]): AsyncGenerator<Uint8Array, void, undefined> {
  let handle: FileHandle | undefined;
  let openPath = '';
  try {
    for (const {entry, path} of entries) {
      if (path !== openPath) {
        await handle?.close();
        handle = await open(path, 'r');
        openPath = path;
      }
      if (handle !== undefined) yield* readPart(handle, entry.offset, entry.size);
    }
  } finally {
    await handle?.close();
  }
}

async function* readPart(
  handle: FileHandle,
  offset: number,
  size: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let done = 0; done < size; ) {
    const chunk = new Uint8Array(Math.min(CHUNK_BYTES_MAX, size - done));
    const {bytesRead} = await handle.read(chunk, 0, chunk.length, offset + done);
    if (bytesRead === 0) throw new Error('Cannot read log: the segment is cut short');
    yield chunk.subarray(0, bytesRead);
    done += bytesRead;
  }
}

async function removeByPrefix(prefix: string): Promise<void> {
  const folder = dirname(prefix);
  for (const name of await readdir(folder))
    if (name.startsWith(basename(prefix))) await rm(join(folder, name), {force: true});
}
