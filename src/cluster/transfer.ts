import type {Txid} from '../ltx/position.ts';
import {ClusterError} from './cluster-error.ts';
import type {FuzzySnapshot, LogPart, ReplicationSource} from './replication-source.ts';
import type {Weight} from './scheduler.ts';
import {type Frame, PAYLOAD_SIZE_MAX} from './wire.ts';

/** How a transfer reaches its follower. */
export interface TransferPort {
  readonly id: string;
  readonly weight: Weight;
  readonly signal: AbortSignal;
  /** Waits for the frame's turn. Rejects with the signal's reason once that is aborted; then nothing more is sent. */
  send(frame: Frame): Promise<void>;
  /** The log after `txid` must stay until the follower has acknowledged more. */
  hold(txid: Txid): void;
}

/** `too-large` and `too-old`: nothing was sent; the transfer needs another weight, or a snapshot. */
export type TransferResult =
  | {readonly at: 'sent'; readonly txid: Txid}
  | {readonly at: 'too-large'}
  | {readonly at: 'too-old'};

/** Sends the log after `after`: in one frame if it fits, else as a transfer, for which the port must be `bulk`. */
export async function sendLog(
  port: TransferPort,
  source: ReplicationSource,
  after: Txid,
): Promise<TransferResult> {
  const part = await source.catchUp(port.id, after, 'cheapest', port.signal);
  if (part === undefined) return {at: 'too-old'};
  try {
    port.signal.throwIfAborted();
    checkFollows(part, after);
    if (part.size <= PAYLOAD_SIZE_MAX) {
      await sendSmall(port, part);
    } else {
      if (port.weight === 'small') return {at: 'too-large'};
      await sendLarge(port, part);
    }
  } finally {
    await part.close();
  }
  return {at: 'sent', txid: part.maxTxid};
}

/** Sends pages and then the log that makes them consistent. `too-old`: there was nothing to copy. */
export async function sendSnapshot(port: TransferPort, source: ReplicationSource): Promise<TransferResult> {
  const copy = await source.snapshot(port.id, port.signal);
  if (copy === undefined) return {at: 'too-old'};
  port.hold(copy.from.txid);
  const {id} = port;
  try {
    port.signal.throwIfAborted();
    const {from, fromTerm, pageSize, pageCount} = copy;
    await port.send({type: 'snapshot-begin', id, from, fromTerm, pageSize, pageCount});
    await sendPages(port, copy);
    const txid = await sendSnapshotLog(port, source, copy);
    await port.send({type: 'end', id, txid});
    return {at: 'sent', txid};
  } catch (error) {
    if (!port.signal.aborted) await port.send({type: 'abort', id});
    throw error;
  } finally {
    await copy.close();
  }
}

async function sendPages(port: TransferPort, {chunks}: FuzzySnapshot): Promise<void> {
  for await (const {pgno, pages} of chunks) {
    port.signal.throwIfAborted();
    await port.send({type: 'pages', id: port.id, pgno, bytes: pages});
  }
  port.signal.throwIfAborted();
}

async function sendSnapshotLog(
  port: TransferPort,
  source: ReplicationSource,
  copy: FuzzySnapshot,
): Promise<Txid> {
  const until = copy.until();
  let after = copy.from.txid;
  while (after < until.txid) {
    const part = await source.catchUp(port.id, after, 'log', port.signal);
    if (part === undefined) {
      throw new ClusterError(
        'CLUSTER_SOURCE',
        `Cannot finish snapshot: the log no longer reaches back to ${after}`,
      );
    }
    try {
      checkFollows(part, after);
      await sendChunks(port, part);
    } finally {
      await part.close();
    }
    after = part.maxTxid;
  }
  return after;
}

async function sendSmall(port: TransferPort, part: LogPart): Promise<void> {
  const bytes = new Uint8Array(part.size);
  let count = 0;
  for await (const chunk of part.chunks) {
    port.signal.throwIfAborted();
    if (count + chunk.length > part.size) throw sizeMismatch(part, count + chunk.length);
    bytes.set(chunk, count);
    count += chunk.length;
  }
  port.signal.throwIfAborted();
  if (count !== part.size) throw sizeMismatch(part, count);
  await port.send({type: 'records', id: port.id, minTxid: part.minTxid, maxTxid: part.maxTxid, bytes});
}

async function sendLarge(port: TransferPort, part: LogPart): Promise<void> {
  const {id} = port;
  const {minTxid, maxTxid, size} = part;
  try {
    await port.send({type: 'record-begin', id, minTxid, maxTxid, size});
    const count = await sendChunks(port, part);
    if (count !== size) throw sizeMismatch(part, count);
    await port.send({type: 'end', id, txid: maxTxid});
  } catch (error) {
    if (!port.signal.aborted) await port.send({type: 'abort', id});
    throw error;
  }
}

async function sendChunks(port: TransferPort, {chunks}: LogPart): Promise<number> {
  let count = 0;
  for await (const bytes of chunks) {
    port.signal.throwIfAborted();
    await port.send({type: 'chunk', id: port.id, bytes});
    count += bytes.length;
  }
  port.signal.throwIfAborted();
  return count;
}

function checkFollows(part: LogPart, after: Txid): void {
  if (part.minTxid === after + 1n && part.maxTxid >= part.minTxid) return;
  throw new ClusterError(
    'CLUSTER_SOURCE',
    `Cannot send log after ${after}: it goes from ${part.minTxid} to ${part.maxTxid}`,
  );
}

function sizeMismatch(part: LogPart, count: number): ClusterError {
  return new ClusterError(
    'CLUSTER_SOURCE',
    `Cannot send log: ${count} bytes came where ${part.size} were announced`,
  );
}
