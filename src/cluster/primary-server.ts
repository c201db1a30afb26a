import type {IncomingMessage, Server} from 'node:http';
import {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {type WebSocket, WebSocketServer} from 'ws';
import {AssertionError} from '../lib/assert.ts';
import type {Position} from '../ltx/position.ts';
import {ClusterError, errorCode} from './cluster-error.ts';
import {FollowerSession, type FollowerStatus} from './follower-session.ts';
import {type FollowerHello, receiveHello, refusalForError, refusalOf, refuse} from './handshake.ts';
import {NeededLog} from './needed-log.ts';
import type {CommittedEvent, ReplicationSource, SourceEvent} from './replication-source.ts';
import {defaultStreamLimits, type StreamLimits} from './stream-limits.ts';
import type {StreamLogger} from './stream-logger.ts';
import {encodeFrame, FRAME_SIZE_MAX, type FrameOf, STREAM_PATH} from './wire.ts';

/** A follower has everything of this database up to and including this position. */
export interface FollowerAck {
  readonly nodeId: string;
  readonly id: string;
  readonly position: Position;
}

export interface PrimaryServerOptions {
  readonly source: ReplicationSource;
  readonly log: StreamLogger;
  readonly limits?: Partial<StreamLimits>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly onAck?: (ack: FollowerAck) => void;
  /** A node has seen a higher term: this one is no longer the primary it believes to be. */
  readonly onHigherTerm?: (term: bigint, nodeId: string) => void;
}

/**
 * Serves the followers' streams for as long as this node is primary of the source's databases. The term, cluster and
 * node ID of the source are fixed for its lifetime: after a change of role, close it and start another one.
 */
export class PrimaryServer {
  readonly #options: PrimaryServerOptions;
  readonly #limits: StreamLimits;
  readonly #webSockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: FRAME_SIZE_MAX,
    clientTracking: true,
  });
  readonly #sessions = new Map<string, FollowerSession>();
  readonly #readers = new Set<FollowerSession>();
  readonly #handshaking = new Set<WebSocket>();
  readonly #needed: NeededLog;
  readonly #unsubscribe: () => void;
  readonly #detach = new Set<() => void>();
  #isClosed = false;

  private constructor(options: PrimaryServerOptions) {
    this.#options = options;
    this.#limits = {...defaultStreamLimits, ...options.limits};
    this.#needed = new NeededLog(this.#readers, needed => options.source.setNeeded(needed));
    this.#unsubscribe = options.source.onChange(event => this.#onChange(event));
  }

  static start(options: PrimaryServerOptions): PrimaryServer {
    return new PrimaryServer(options);
  }

  /** Takes the upgrades of `STREAM_PATH` from `server` and leaves all others alone. Returns the way back. */
  attach(server: Server): () => void {
    const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      if (isStreamRequest(request)) this.handleUpgrade(request, socket, head);
    };
    const detach = () => {
      server.off('upgrade', onUpgrade);
      this.#detach.delete(detach);
    };
    server.on('upgrade', onUpgrade);
    this.#detach.add(detach);
    return detach;
  }

  /** Takes over the socket of an upgrade request, for callers that route them by themselves. */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (this.#isClosed || !(socket instanceof Socket)) {
      socket.destroy();
      return;
    }
    socket.setNoDelay(true);
    this.#webSockets.handleUpgrade(request, socket, head, ws => {
      // What comes with an error comes with `close`, too.
      ws.on('error', error =>
        this.#options.log.debug('follower connection failed', {code: errorCode(error)}),
      );
      void this.#handshake(ws, socket);
    });
  }

  followers(): FollowerStatus[] {
    return [...this.#sessions.values()].map(session => session.status);
  }

  /** The last position that a connected follower has acknowledged, if any. */
  acked(nodeId: string, id: string): Position | undefined {
    return this.#sessions.get(nodeId)?.acked(id);
  }

  /** Ends all streams, telling the followers so, and takes no more. Every socket is gone when it resolves. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unsubscribe();
    for (const detach of this.#detach) detach();
    const closed = [...this.#webSockets.clients].map(
      ws => new Promise<void>(done => ws.once('close', () => done())),
    );
    const inSession = [...this.#sessions.values()];
    for (const session of inSession) session.close('closing');
    for (const ws of this.#webSockets.clients)
      refuse(ws, {code: 'closing', message: 'Cannot serve: closing'});
    await Promise.all(closed);
    this.#needed.close();
  }

  async #handshake(ws: WebSocket, socket: Socket): Promise<void> {
    this.#handshaking.add(ws);
    try {
      await receiveHello(ws, this.#limits, {
        judge: (hello, positionCount) => this.#judge(hello, positionCount),
        accept: hello => this.#accept(ws, socket, hello),
      });
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      this.#options.log.warn('follower refused', {code: errorCode(error), error});
      refuse(ws, error instanceof RefusedError ? error.refusal : refusalForError(error));
    } finally {
      this.#handshaking.delete(ws);
    }
  }

  #accept(ws: WebSocket, socket: Socket, {nodeId, positions}: FollowerHello): void {
    if (this.#isClosed) return;
    const {source, log} = this.#options;
    this.#handshaking.delete(ws);
    this.#sessions.get(nodeId)?.close('replaced');
    const session = this.#createSession(ws, socket, nodeId);
    this.#sessions.set(nodeId, session);
    this.#readers.add(session);
    log.info('follower connected', {nodeId, term: source.term, databases: positions.length});
    session.start(positions);
  }

  #judge(hello: FrameOf<'hello'>, positionCount: number): void {
    const {source, onHigherTerm} = this.#options;
    const refusal = refusalOf(hello, source, positionCount);
    if (refusal === undefined) return;
    if (refusal.code === 'term') onHigherTerm?.(hello.termSeen, hello.nodeId);
    throw new RefusedError(refusal);
  }

  #createSession(ws: WebSocket, socket: Socket, nodeId: string): FollowerSession {
    const {source, log, now, onAck} = this.#options;
    return new FollowerSession({
      ws,
      socket,
      source,
      nodeId,
      limits: this.#limits,
      log,
      now,
      onAck: (id, position) => onAck?.({nodeId, id, position}),
      onNeeds: (id, isUrgent) => this.#needed.touch(id, isUrgent),
      onClose: session => this.#forget(session),
    });
  }

  #forget(session: FollowerSession): void {
    if (this.#sessions.get(session.nodeId) === session) this.#sessions.delete(session.nodeId);
    this.#readers.delete(session);
    this.#options.log.info('follower gone', {nodeId: session.nodeId});
    if (this.#isClosed) return;
    for (const id of session.databaseIds()) this.#needed.touch(id, false);
  }

  #onChange(event: SourceEvent): void {
    if (event.type === 'committed') {
      const frame = onceEncoded(event);
      for (const session of this.#sessions.values()) session.onCommitted(event, frame);
      return;
    }
    for (const session of this.#sessions.values()) session.onCatalogue(event);
  }
}

class RefusedError extends ClusterError {
  readonly refusal: ReturnType<typeof refusalForError>;

  constructor(refusal: ReturnType<typeof refusalForError>) {
    super('CLUSTER_REFUSED', refusal.message, {reason: refusal.code});
    this.refusal = refusal;
  }
}

function isStreamRequest(request: IncomingMessage): boolean {
  return request.url?.split('?', 1)[0] === STREAM_PATH;
}

/** All followers are sent the same bytes, encoded when the first one wants them. */
function onceEncoded({id, position, record}: CommittedEvent): () => Uint8Array {
  let frame: Uint8Array | undefined;
  return () => {
    frame ??= encodeFrame({
      type: 'records',
      id,
      minTxid: position.txid,
      maxTxid: position.txid,
      bytes: record ?? new Uint8Array(0),
    });
    return frame;
  };
}
