import type {Socket} from 'node:net';
import type {WebSocket} from 'ws';
import {AssertionError, unreachable} from '../lib/assert.ts';
import type {Position, Txid} from '../ltx/position.ts';
import {ClusterError, errorCode} from './cluster-error.ts';
import {FollowerFeed} from './follower-feed.ts';
import {decodeBinary, refuse} from './handshake.ts';
import {Liveness} from './liveness.ts';
import {Outbox} from './outbox.ts';
import type {CatalogueEvent, CommittedEvent, DatabaseState, ReplicationSource} from './replication-source.ts';
import type {StreamLimits} from './stream-limits.ts';
import type {StreamLogger} from './stream-logger.ts';
import {encodeFrame, type FollowerPosition, type Frame, inPages, type RefusalCode} from './wire.ts';

export interface FollowerStatus {
  readonly nodeId: string;
  /** Every database has been acknowledged as of the time the follower connected. */
  readonly isReady: boolean;
  /** Databases that need something else than the next commit. */
  readonly behindCount: number;
  /** Bytes of records and pages sent and not yet taken. */
  readonly inFlightBytes: number;
  /** Bytes not yet sent. */
  readonly bufferedBytes: number;
}

export interface FollowerSessionOptions {
  readonly ws: WebSocket;
  readonly socket: Socket;
  readonly source: ReplicationSource;
  readonly nodeId: string;
  readonly limits: StreamLimits;
  readonly log: StreamLogger;
  readonly now: () => number;
  readonly onAck: (id: string, position: Position) => void;
  /** What this follower needs of a database's log has changed. */
  readonly onNeeds: (id: string, isUrgent: boolean) => void;
  readonly onClose: (session: FollowerSession) => void;
}

/** The primary's side of one follower's stream, from the end of the handshake on. */
export class FollowerSession {
  readonly nodeId: string;
  readonly #options: FollowerSessionOptions;
  readonly #outbox: Outbox;
  readonly #feed: FollowerFeed;
  #liveness: Liveness | undefined;
  #isStarted = false;
  #isReady = false;
  #isClosed = false;

  constructor(options: FollowerSessionOptions) {
    const {ws, source, nodeId, limits, log, onAck, onNeeds} = options;
    this.nodeId = nodeId;
    this.#options = options;
    this.#outbox = new Outbox({ws, limits, onOverflow: () => this.close('overload')});
    const onProgress = () => this.#checkReady();
    this.#feed = new FollowerFeed({
      source,
      outbox: this.#outbox,
      nodeId,
      limits,
      log,
      onAck,
      onNeeds,
      onProgress,
    });
  }

  get status(): FollowerStatus {
    const {behindCount, inFlightBytes} = this.#feed;
    const {nodeId} = this;
    return {
      nodeId,
      isReady: this.#isReady,
      behindCount,
      inFlightBytes,
      bufferedBytes: this.#outbox.bufferedBytes,
    };
  }

  acked(id: string): Position | undefined {
    return this.#feed.acked(id);
  }

  neededAfter(id: string): Txid | undefined {
    return this.#feed.neededAfter(id);
  }

  databaseIds(): Iterable<string> {
    return this.#feed.ids();
  }

  /** Welcomes the follower, settles which databases it has, and begins to send. Called once, in one turn of the loop. */
  start(positions: readonly FollowerPosition[]): void {
    const {ws, socket, source, limits} = this.#options;
    ws.on('message', (data, isBinary) => this.#onMessage(data, isBinary));
    ws.on('close', () => this.#end());
    this.#liveness = new Liveness({
      ws,
      socket,
      limits,
      onBeat: () => this.#beat(),
      onSilence: () => this.close('silent'),
    });
    this.#control({type: 'welcome', nodeId: source.nodeId, clusterId: source.clusterId, term: source.term});
    const theirs = new Map(positions.map(position => [position.id, position]));
    const ours = new Map<string, DatabaseState>();
    for (const state of source.databases()) ours.set(state.id, state);
    this.#settleForeign(theirs, ours);
    const entries = [...ours.values()].map(({id, name, position}) => ({id, name, position}));
    const pages = inPages(entries);
    pages.forEach((page, index) => {
      this.#control({type: 'catalogue', isLast: index === pages.length - 1, entries: page});
    });
    for (const state of ours.values()) this.#feed.enter(state, theirs.get(state.id));
    this.#isStarted = true;
    this.#checkReady();
  }

  /** `frame` gives the event's record, encoded, if it has one. */
  onCommitted(event: CommittedEvent, frame: () => Uint8Array): void {
    this.#feed.onCommitted(event, frame);
  }

  onCatalogue(event: CatalogueEvent): void {
    const {id, name} = event;
    switch (event.type) {
      case 'created': {
        if (this.#feed.has(id)) return;
        this.#control({type: 'create', id, name});
        const state = this.#options.source.database(id);
        if (state !== undefined) this.#feed.enter(state, undefined);
        return;
      }
      case 'renamed':
        this.#control({type: 'rename', id, name});
        return;
      case 'dropped':
        this.#feed.forget(id);
        this.#control({type: 'drop', id});
        this.#checkReady();
        return;
      default:
        unreachable(event.type);
    }
  }

  /** Ends the stream. Where the follower can still be told why, it is. */
  close(reason: 'silent' | 'overload' | RefusalCode): void {
    const {ws, log} = this.#options;
    if (this.#isClosed) return;
    if (reason === 'silent' || reason === 'overload') {
      log.warn('follower disconnected', {nodeId: this.nodeId, reason});
      ws.terminate();
    } else {
      refuse(ws, {code: reason, message: `Cannot go on with stream: ${reason}`});
    }
    this.#end();
  }

  #end(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#liveness?.stop();
    this.#feed.close();
    this.#options.onClose(this);
  }

  #settleForeign(
    theirs: ReadonlyMap<string, FollowerPosition>,
    ours: ReadonlyMap<string, DatabaseState>,
  ): void {
    const dropped = this.#options.source.droppedIds();
    for (const {id, name} of theirs.values()) {
      if (ours.has(id)) continue;
      const type = dropped.has(id) ? 'drop' : 'orphan';
      if (type === 'orphan')
        this.#options.log.warn('follower has unknown database', {nodeId: this.nodeId, id, name});
      this.#control({type, id});
    }
  }

  #checkReady(): void {
    if (this.#isReady || !this.#isStarted || !this.#feed.isSynced) return;
    this.#isReady = true;
    this.#control({type: 'ready', databaseCount: this.#feed.databaseCount});
  }

  #control(frame: Frame): void {
    if (!this.#isClosed) this.#outbox.control(frame);
  }

  #beat(): void {
    const isCaughtUp = this.#outbox.isClear && this.#isReady && this.#feed.behindCount === 0;
    this.#outbox.offer(encodeFrame({type: 'heartbeat', timestampMs: this.#options.now(), isCaughtUp}));
  }

  #onMessage(data: unknown, isBinary: boolean): void {
    if (this.#isClosed) return;
    try {
      this.#receive(decodeBinary(data, isBinary));
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      this.#options.log.error('follower broke the protocol', {
        nodeId: this.nodeId,
        code: errorCode(error),
        error,
      });
      this.close('protocol');
    }
  }

  #receive(frame: Frame): void {
    switch (frame.type) {
      case 'heartbeat':
        return;
      case 'ack':
        for (const {id, position} of frame.entries) this.#feed.onAck(id, position);
        this.#checkReady();
        return;
      case 'credit':
        for (const {id, size} of frame.entries) this.#feed.onCredit(id, size);
        return;
      case 'resync':
        this.#feed.onResync(frame);
        return;
      default:
        throw new ClusterError('CLUSTER_PROTOCOL', `Cannot accept frame from follower: ${frame.type}`);
    }
  }
}
