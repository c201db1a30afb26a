import {setMaxListeners} from 'node:events';
import type {IncomingMessage} from 'node:http';
import {WebSocket} from 'ws';
import {AssertionError} from '../lib/assert.ts';
import {AckOutbox} from './ack-outbox.ts';
import {isLaneFrame} from './apply-lane.ts';
import {ApplyQueue} from './apply-queue.ts';
import {planNames} from './catalogue-plan.ts';
import {ClusterError} from './cluster-error.ts';
import {decodeBinary} from './handshake.ts';
import {Liveness} from './liveness.ts';
import type {ReplicationSink} from './replication-sink.ts';
import type {StreamLimits} from './stream-limits.ts';
import type {StreamLogger} from './stream-logger.ts';
import {type CatalogueEntry, encodeFrame, FRAME_SIZE_MAX, type Frame, type FrameOf, inPages} from './wire.ts';

/** The primary that a connection is made with, as it has said itself. */
export interface PrimaryIdentity {
  readonly nodeId: string;
  readonly term: bigint;
}

export interface PrimaryConnectionOptions {
  /** `ws:` or `wss:` URL of the primary's stream. */
  readonly url: string;
  readonly sink: ReplicationSink;
  readonly limits: StreamLimits;
  readonly log: StreamLogger;
  readonly now: () => number;
  readonly signal: AbortSignal;
  readonly onWelcome: (primary: PrimaryIdentity) => void;
  /** All databases are as the primary had them when the connection was made. */
  readonly onReady: (primary: PrimaryIdentity) => void;
}

type Phase =
  | {readonly at: 'hello'}
  | {
      readonly at: 'catalogue';
      readonly primary: PrimaryIdentity;
      readonly clusterId: string;
      readonly foreign: FrameOf<'drop' | 'orphan'>[];
      readonly entries: CatalogueEntry[];
    }
  | {readonly at: 'following'; readonly primary: PrimaryIdentity}
  | {readonly at: 'ended'};

/** A follower's side of one stream: from the connection to its end. */
export class PrimaryConnection {
  readonly #options: PrimaryConnectionOptions;
  readonly #ws: WebSocket;
  readonly #acks: AckOutbox;
  readonly #queue: ApplyQueue;
  readonly #ended = new AbortController();
  readonly #handshakeTimer: NodeJS.Timeout;
  #setStarted: () => void = () => {};
  #reconciling: Promise<void> = Promise.resolve();
  #resolve: (error: Error) => void = () => {};
  #liveness: Liveness | undefined;
  #phase: Phase = {at: 'hello'};

  private constructor(options: PrimaryConnectionOptions) {
    const {url, sink, limits, log} = options;
    this.#options = options;
    setMaxListeners(0, this.#ended.signal); // One for each database that waits.
    const handshakeTimeout = limits.handshakeMs;
    this.#ws = new WebSocket(url, {perMessageDeflate: false, maxPayload: FRAME_SIZE_MAX, handshakeTimeout});
    this.#acks = new AckOutbox(this.#ws);
    const started = new Promise<void>(resolve => {
      this.#setStarted = resolve;
    });
    this.#queue = new ApplyQueue({
      sink,
      log,
      signal: this.#ended.signal,
      started,
      acknowledge: (id, position) => this.#acks.acknowledge(id, position),
      credit: (id, size) => this.#acks.credit(id, size),
      resync: frame => this.#resync(frame),
      fail: error => this.#end(error),
      onPendingBytes: bytes => this.#onPendingBytes(bytes),
    });
    this.#handshakeTimer = setTimeout(
      () =>
        this.#end(
          new ClusterError('CLUSTER_HANDSHAKE_TIMEOUT', 'Cannot open stream: the primary did not answer'),
        ),
      handshakeTimeout * 2,
    );
  }

  /**
   * Connects and follows until the stream ends, then resolves with the reason, once nothing of it touches the sink any
   * more. Ending it by the signal resolves with `CLUSTER_CLOSED`.
   */
  static async run(options: PrimaryConnectionOptions): Promise<Error> {
    if (options.signal.aborted) return closedError();
    return await new PrimaryConnection(options).#run();
  }

  async #run(): Promise<Error> {
    const {signal} = this.#options;
    const ended = new Promise<Error>(resolve => {
      this.#resolve = resolve;
    });
    const onAbort = () => this.#end(closedError());
    signal.addEventListener('abort', onAbort, {once: true});
    this.#listen();
    const error = await ended;
    signal.removeEventListener('abort', onAbort);
    await this.#reconciling;
    await this.#queue.close();
    return error;
  }

  #listen(): void {
    const ws = this.#ws;
    ws.once('upgrade', (response: IncomingMessage) => {
      const {socket} = response;
      const {limits} = this.#options;
      socket.setNoDelay(true);
      ws.once('open', () => {
        this.#liveness = new Liveness({
          ws,
          socket,
          limits,
          onBeat: () => this.#beat(),
          onSilence: () =>
            this.#end(new ClusterError('CLUSTER_SILENT', 'Cannot go on with stream: the primary is silent')),
        });
        this.#sayHello();
      });
    });
    ws.on('message', (data, isBinary) => this.#onMessage(data, isBinary));
    ws.on('error', cause => this.#end(disconnected(cause)));
    ws.on('close', code => this.#end(disconnected(new Error(`closed with code ${code}`))));
  }

  #sayHello(): void {
    const {sink} = this.#options;
    const clusterId = sink.clusterId() ?? '';
    this.#send({type: 'hello', nodeId: sink.nodeId, clusterId, termSeen: sink.termSeen()});
    const entries = [...sink.databases()].map(({id, name, position, term}) => ({id, name, position, term}));
    const pages = inPages(entries);
    pages.forEach((page, index) => {
      this.#send({type: 'positions', isLast: index === pages.length - 1, entries: page});
    });
  }

  #onMessage(data: unknown, isBinary: boolean): void {
    if (this.#phase.at === 'ended') return;
    try {
      this.#receive(decodeBinary(data, isBinary));
    } catch (error) {
      if (!(error instanceof Error) || error instanceof AssertionError) throw error;
      this.#end(error);
    }
  }

  #receive(frame: Frame): void {
    if (frame.type === 'refused') {
      throw new ClusterError('CLUSTER_REFUSED', `Cannot follow primary: ${frame.message}`, {
        reason: frame.code,
      });
    }
    if (this.#phase.at === 'hello') {
      if (frame.type !== 'welcome') throw unexpected(frame, 'before the welcome');
      this.#onWelcome(frame);
    } else if (frame.type === 'heartbeat') {
      this.#onHeartbeat(frame);
    } else if (this.#phase.at === 'catalogue') {
      this.#onCatalogue(this.#phase, frame);
    } else if (this.#phase.at === 'following') {
      this.#onFollowing(frame, this.#phase.primary);
    }
  }

  #onWelcome({nodeId, clusterId, term}: FrameOf<'welcome'>): void {
    clearTimeout(this.#handshakeTimer);
    const {sink, onWelcome} = this.#options;
    const ownClusterId = sink.clusterId();
    if (ownClusterId !== undefined && ownClusterId !== clusterId) {
      throw new ClusterError(
        'CLUSTER_OTHER_CLUSTER',
        `Cannot follow primary "${nodeId}": it is of cluster "${clusterId}", this node of "${ownClusterId}"`,
        {nodeId, clusterId, ownClusterId},
      );
    }
    if (ownClusterId === undefined && !isEmpty(sink.databases())) {
      throw new ClusterError(
        'CLUSTER_OTHER_CLUSTER',
        `Cannot follow primary "${nodeId}": this node has databases but no cluster ID, the primary is of "${clusterId}"`,
        {nodeId, clusterId},
      );
    }
    if (term < sink.termSeen()) {
      throw new ClusterError(
        'CLUSTER_STALE_PRIMARY',
        `Cannot follow primary "${nodeId}": it is of term ${term}, this node has seen ${sink.termSeen()}`,
        {nodeId, term, termSeen: sink.termSeen()},
      );
    }
    const primary = {nodeId, term};
    this.#phase = {at: 'catalogue', primary, clusterId, foreign: [], entries: []};
    onWelcome(primary);
  }

  #onCatalogue(phase: Phase & {at: 'catalogue'}, frame: Frame): void {
    switch (frame.type) {
      case 'drop':
      case 'orphan':
        phase.foreign.push(frame);
        break;
      case 'catalogue':
        phase.entries.push(...frame.entries);
        break;
      default:
        throw unexpected(frame, 'in the catalogue');
    }
    if (phase.entries.length + phase.foreign.length > this.#options.limits.databaseCountMax) {
      throw new ClusterError('CLUSTER_PROTOCOL', 'Cannot follow primary: it has too many databases');
    }
    if (frame.type !== 'catalogue' || !frame.isLast) return;
    this.#phase = {at: 'following', primary: phase.primary};
    this.#reconciling = this.#reconcile(phase);
  }

  /** Joins the cluster and settles which databases there are. All that comes for a database waits for it. */
  async #reconcile({primary, clusterId, foreign, entries}: Phase & {at: 'catalogue'}): Promise<void> {
    const {sink} = this.#options;
    try {
      if (sink.clusterId() === undefined) await sink.adoptCluster(clusterId);
      if (primary.term > sink.termSeen()) await sink.adoptTerm(primary.term);
      for (const {type, id} of foreign) {
        if (this.#isEnded) return;
        await (type === 'drop' ? sink.drop(id) : sink.orphan(id));
      }
      for (const {type, id, name} of planNames(sink.databases(), entries, temporaryName)) {
        if (this.#isEnded) return;
        await (type === 'create' ? sink.create(id, name) : sink.rename(id, name));
      }
    } catch (error) {
      if (!(error instanceof Error) || error instanceof AssertionError) throw error;
      this.#end(error);
    } finally {
      this.#setStarted();
    }
  }

  #onFollowing(frame: Frame, primary: PrimaryIdentity): void {
    if (isLaneFrame(frame)) {
      this.#queue.push(frame);
      return;
    }
    switch (frame.type) {
      case 'create':
      case 'rename':
        this.#queue.operation(frame.id, 'name', () => this.#setName(frame.id, frame.name));
        return;
      case 'drop':
        this.#queue.operation(frame.id, 'drop', async () => {
          const {sink} = this.#options;
          if (sink.database(frame.id) !== undefined) await sink.drop(frame.id);
        });
        return;
      case 'ready':
        void this.#reconciling.then(() => {
          if (!this.#isEnded) this.#options.onReady(primary);
        });
        return;
      default:
        throw unexpected(frame, 'while following');
    }
  }

  /** May come for a name that the catalogue had already. */
  async #setName(id: string, name: string): Promise<void> {
    const {sink} = this.#options;
    const known = sink.database(id);
    if (known === undefined) await sink.create(id, name);
    else if (known.name !== name) await sink.rename(id, name);
  }

  #onHeartbeat({timestampMs, isCaughtUp}: FrameOf<'heartbeat'>): void {
    if (isCaughtUp && this.#phase.at === 'following' && this.#queue.isIdle) {
      this.#options.sink.primaryHeard(timestampMs);
    }
  }

  #onPendingBytes(bytes: number): void {
    const {applyBacklogBytesMax} = this.#options.limits;
    if (bytes > applyBacklogBytesMax && !this.#ws.isPaused) this.#ws.pause();
    if (bytes < applyBacklogBytesMax / 2 && this.#ws.isPaused) this.#ws.resume();
  }

  #resync(frame: FrameOf<'resync'>): void {
    if (this.#isEnded) return;
    // Acknowledgements must not come after the request that they precede.
    this.#acks.flush(true);
    this.#send(frame);
  }

  #beat(): void {
    this.#acks.flush();
    if (this.#ws.bufferedAmount > FRAME_SIZE_MAX) return;
    this.#send({type: 'heartbeat', timestampMs: this.#options.now(), isCaughtUp: this.#queue.isIdle});
  }

  #send(frame: Frame): void {
    if (this.#ws.readyState === this.#ws.OPEN) this.#ws.send(encodeFrame(frame));
  }

  get #isEnded(): boolean {
    return this.#phase.at === 'ended';
  }

  #end(error: Error): void {
    if (this.#isEnded) return;
    this.#phase = {at: 'ended'};
    clearTimeout(this.#handshakeTimer);
    this.#liveness?.stop();
    this.#acks.close();
    this.#ended.abort();
    this.#setStarted();
    this.#ws.terminate();
    this.#resolve(error);
  }
}

/** Held for a moment only, while names go round in a circle. */
function temporaryName(id: string): string {
  return `.ferrite-rename-${id}`;
}

function isEmpty(values: Iterable<unknown>): boolean {
  for (const _ of values) return false;
  return true;
}

function closedError(): ClusterError {
  return new ClusterError('CLUSTER_CLOSED', 'Cannot go on with stream: it was stopped');
}

function disconnected(cause: Error): ClusterError {
  return new ClusterError('CLUSTER_DISCONNECTED', `Cannot reach primary: ${cause.message}`, {}, cause);
}

function unexpected(frame: Frame, when: string): ClusterError {
  return new ClusterError('CLUSTER_PROTOCOL', `Cannot accept frame from primary: ${frame.type} ${when}`);
}
