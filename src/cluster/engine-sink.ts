import type {ApplyEvent} from '../engine/apply-messages.ts';
import type {ApplyClient} from '../engine/client/apply-client.ts';
import type {FsClient} from '../engine/client/fs-client.ts';
import {decodeLtxHeader} from '../ltx/header.ts';
import {EMPTY_POSITION, type Position} from '../ltx/position.ts';
import type {NodeIdentity} from './node-identity.ts';
import type {LargeInfo, LargeTransfer, ReplicationSink} from './replication-sink.ts';
import type {DatabaseState} from './replication-source.ts';
import type {RewindReason} from './wire.ts';

/** The fs thread is told at most so often, since it is woken for it. */
const HEARD_INTERVAL_MS = 20;

export interface EngineSinkOptions {
  readonly apply: ApplyClient;
  readonly fs: FsClient;
  readonly identity: NodeIdentity;
  readonly databases: readonly DatabaseState[];
}

/** The databases that this node follows, as the stream from the primary sees them: state mirrored from the apply thread's events. */
export class EngineSink implements ReplicationSink {
  readonly #options: EngineSinkOptions;
  readonly #databases = new Map<string, DatabaseState>();
  #transferLast = 0;
  #heardMs = 0;
  #heardTimer: NodeJS.Timeout | undefined;

  constructor(options: EngineSinkOptions) {
    this.#options = options;
    for (const database of options.databases) this.#databases.set(database.id, database);
  }

  get nodeId(): string {
    return this.#options.identity.nodeId;
  }

  clusterId(): string | undefined {
    return this.#options.identity.clusterId;
  }

  async adoptCluster(clusterId: string): Promise<void> {
    this.#options.identity.adoptCluster(clusterId);
  }

  termSeen(): bigint {
    return this.#options.identity.term;
  }

  async adoptTerm(term: bigint): Promise<void> {
    this.#options.identity.adoptTerm(term);
  }

  databases(): Iterable<DatabaseState> {
    return this.#databases.values();
  }

  database(id: string): DatabaseState | undefined {
    return this.#databases.get(id);
  }

  async create(id: string, name: string): Promise<void> {
    this.#options.fs.send({type: 'followed', id, name});
    await this.#options.apply.ask({type: 'create', id, name});
  }

  async rename(id: string, name: string): Promise<void> {
    this.#options.fs.send({type: 'moving', id, name});
    await this.#options.apply.ask({type: 'rename', id, name});
    this.#options.fs.send({type: 'followed', id, name});
  }

  async drop(id: string): Promise<void> {
    await this.#options.apply.ask({type: 'drop', id});
    this.#gone(id);
  }

  async orphan(id: string): Promise<void> {
    await this.#options.apply.ask({type: 'orphan', id});
    this.#gone(id);
  }

  async apply(id: string, records: Uint8Array, signal: AbortSignal): Promise<Position> {
    const {timestampMs} = decodeLtxHeader(records);
    const position = required(await this.#options.apply.ask({type: 'apply', id, records}, signal));
    this.primaryHeard(timestampMs);
    return position;
  }

  async beginLarge(id: string, info: LargeInfo, signal: AbortSignal): Promise<LargeTransfer> {
    const {apply} = this.#options;
    const transfer = ++this.#transferLast;
    await apply.ask({type: 'transfer-begin', id, transfer, info}, signal);
    return {
      writePages: async (pgno, bytes) =>
        void (await apply.ask({type: 'transfer-pages', transfer, pgno, bytes}, signal)),
      writeRecord: async bytes => void (await apply.ask({type: 'transfer-record', transfer, bytes}, signal)),
      finish: async () => required(await apply.ask({type: 'transfer-finish', transfer}, signal)),
      abort: async () => void (await apply.ask({type: 'transfer-abort', transfer})),
    };
  }

  async rewind(id: string, reason: RewindReason): Promise<void> {
    await this.#options.apply.ask({type: 'rewind', id, reason});
  }

  /** Also called with the time of each transaction that was applied: under load there is no moment at which nothing waits. */
  primaryHeard(timestampMs: number): void {
    if (timestampMs <= this.#heardMs) return;
    this.#heardMs = timestampMs;
    if (this.#heardTimer !== undefined) return;
    this.#heardTimer = setTimeout(() => {
      this.#heardTimer = undefined;
      this.#options.fs.send({type: 'heard', timestampMs: this.#heardMs});
    }, HEARD_INTERVAL_MS);
  }

  hear(event: ApplyEvent): void {
    if (event.type === 'changed') this.#databases.set(event.database.id, event.database);
    if (event.type === 'attached') this.#options.fs.send({type: 'attached', id: event.id});
  }

  #gone(id: string): void {
    this.#databases.delete(id);
    this.#options.fs.send({type: 'unfollowed', id});
  }
}

function required(position: Position | undefined): Position {
  return position ?? EMPTY_POSITION;
}
