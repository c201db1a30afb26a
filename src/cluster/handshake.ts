import type {WebSocket} from 'ws';
import {ClusterError, errorCode} from './cluster-error.ts';
import type {ReplicationSource} from './replication-source.ts';
import type {StreamLimits} from './stream-limits.ts';
import {
  decodeFrame,
  encodeFrame,
  type FollowerPosition,
  type Frame,
  type FrameOf,
  type RefusalCode,
} from './wire.ts';

/** What a follower said of itself. */
export interface FollowerHello {
  readonly nodeId: string;
  readonly termSeen: bigint;
  readonly positions: readonly FollowerPosition[];
}

/** Ours to tell the peer: why it is not served. */
export interface Refusal {
  readonly code: RefusalCode;
  readonly message: string;
}

/** What becomes of a follower's hello; either may refuse it by throwing. */
export interface HelloHandler {
  /** Called with the hello itself, then again as positions come. */
  judge(hello: FrameOf<'hello'>, positionCount: number): void;
  /** Called with all of it, in the same turn as its last frame, so that whoever listens from then on misses nothing. */
  accept(hello: FollowerHello): void;
}

/**
 * Collects a follower's `hello` and all of its positions. Resolves when it was accepted. Rejects with `ClusterError` (too
 * slow, not the protocol, gone), `WireError` or what the handler has thrown; the caller refuses the peer and closes.
 */
export async function receiveHello(
  ws: WebSocket,
  limits: StreamLimits,
  handler: HelloHandler,
): Promise<void> {
  const reader = new HelloReader(limits.databaseCountMax, handler);
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(
      () =>
        fail(
          new ClusterError('CLUSTER_HANDSHAKE_TIMEOUT', 'Cannot open stream: the follower said too little'),
        ),
      limits.handshakeMs,
    );
    const onClose = () =>
      fail(new ClusterError('CLUSTER_DISCONNECTED', 'Cannot open stream: the follower is gone'));
    const stop = () => {
      clearTimeout(timer);
      ws.off('message', onMessage);
      ws.off('close', onClose);
    };
    const fail = (error: unknown) => {
      stop();
      reject(error);
    };
    const onMessage = (data: unknown, isBinary: boolean) => {
      try {
        const hello = reader.take(decodeBinary(data, isBinary));
        if (hello === undefined) return;
        stop();
        handler.accept(hello);
        resolve();
      } catch (error) {
        fail(error);
      }
    };
    ws.on('message', onMessage);
    ws.on('close', onClose);
  });
}

class HelloReader {
  readonly #positionCountMax: number;
  readonly #handler: HelloHandler;
  readonly #positions: FollowerPosition[] = [];
  #hello: FrameOf<'hello'> | undefined;

  constructor(positionCountMax: number, handler: HelloHandler) {
    this.#positionCountMax = positionCountMax;
    this.#handler = handler;
  }

  /** Returns all of it with the last frame. */
  take(frame: Frame): FollowerHello | undefined {
    if (this.#hello === undefined) {
      if (frame.type !== 'hello') throw unexpected(frame);
      this.#hello = frame;
      this.#handler.judge(frame, 0);
      return undefined;
    }
    if (frame.type === 'heartbeat') return undefined;
    if (frame.type !== 'positions') throw unexpected(frame);
    this.#positions.push(...frame.entries);
    if (this.#positions.length > this.#positionCountMax) throw tooMany(this.#positionCountMax);
    this.#handler.judge(this.#hello, this.#positions.length);
    if (!frame.isLast) return undefined;
    const {nodeId, termSeen} = this.#hello;
    return {nodeId, termSeen, positions: this.#positions};
  }
}

/** Whether `source` serves a follower that says this; `undefined`: it does. */
export function refusalOf(
  hello: FrameOf<'hello'>,
  source: ReplicationSource,
  positionCount: number,
): Refusal | undefined {
  if (hello.nodeId === source.nodeId) {
    return {code: 'self', message: `Cannot serve follower: it has this node's own ID "${hello.nodeId}"`};
  }
  if (hello.clusterId !== '' && hello.clusterId !== source.clusterId) {
    return {
      code: 'cluster',
      message: `Cannot serve follower: it is of cluster "${hello.clusterId}", this node of "${source.clusterId}"`,
    };
  }
  if (hello.clusterId === '' && positionCount > 0) {
    return {
      code: 'cluster',
      message: `Cannot serve follower: it has databases but no cluster ID; this node is of "${source.clusterId}"`,
    };
  }
  if (hello.termSeen > source.term) {
    return {
      code: 'term',
      message: `Cannot serve follower: it has seen term ${hello.termSeen}, this node is primary of term ${source.term}`,
    };
  }
  return undefined;
}

/** Decodes one WebSocket message. Throws `WireError`, or `CLUSTER_PROTOCOL` for text. */
export function decodeBinary(data: unknown, isBinary: boolean): Frame {
  if (!isBinary || !(data instanceof Uint8Array)) {
    throw new ClusterError('CLUSTER_PROTOCOL', 'Cannot read message: it is text');
  }
  return decodeFrame(data);
}

/** Tells the peer why, as far as it can still be told, and closes. */
export function refuse(ws: WebSocket, {code, message}: Refusal): void {
  if (ws.readyState !== ws.OPEN) {
    ws.terminate();
    return;
  }
  // A peer that does not take it in is not waited for.
  const timer = setTimeout(() => ws.terminate(), REFUSE_TIMEOUT_MS);
  ws.once('close', () => clearTimeout(timer));
  ws.send(encodeFrame({type: 'refused', code, message: message.slice(0, 250)}), () => ws.close(1008));
}

/** The refusal that tells a peer what was wrong with its bytes. */
export function refusalForError(error: unknown): Refusal {
  const message = error instanceof Error ? error.message : String(error);
  return {code: errorCode(error) === 'WIRE_VERSION' ? 'version' : 'protocol', message};
}

const REFUSE_TIMEOUT_MS = 1_000;

function unexpected(frame: Frame): ClusterError {
  return new ClusterError('CLUSTER_PROTOCOL', `Cannot open stream: unexpected ${frame.type}`);
}

function tooMany(max: number): ClusterError {
  return new ClusterError(
    'CLUSTER_PROTOCOL',
    `Cannot open stream: the follower has more than ${max} databases`,
  );
}
