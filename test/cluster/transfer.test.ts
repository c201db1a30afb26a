import {expect, test} from 'vitest';
import {SnapshotStream} from '../../src/cluster/snapshot-stream.ts';
import {sendLog, sendSnapshot, type TransferPort} from '../../src/cluster/transfer.ts';
import type {Frame} from '../../src/cluster/wire.ts';
import {EMPTY_POSITION, toTxid} from '../../src/ltx/position.ts';
import {idOf, pageOf} from './harness.ts';
import {MemorySource} from './memory-source.ts';

const A = idOf(0xa);
const FROM_START = toTxid(0n);

/** A follower that goes away when a frame of type `last` waits for its turn. */
function portUntil(last: Frame['type'] | undefined): {port: TransferPort; sent: Frame['type'][]} {
  const gone = new AbortController();
  const sent: Frame['type'][] = [];
  const port: TransferPort = {
    id: A,
    weight: 'bulk',
    signal: gone.signal,
    hold: () => undefined,
    send: async ({type}) => {
      if (type === last) gone.abort();
      gone.signal.throwIfAborted();
      sent.push(type);
    },
  };
  return {port, sent};
}

function sourceOf(pageCount: number): MemorySource {
  const source = new MemorySource();
  source.create(A, 'a.db', 4096);
  source.commit(A, new Map(), pageCount);
  return source;
}

test.each(['records', 'record-begin', 'chunk', 'end'] as const)(
  'sendLog() closes what it was given when the follower goes away at "%s"',
  async last => {
    const source = sourceOf(last === 'records' ? 1 : 500);
    await expect(sendLog(portUntil(last).port, source, FROM_START)).rejects.toThrow();
    expect(source.openCount).toBe(0);
  },
);

test.each(['snapshot-begin', 'pages', 'chunk', 'end'] as const)(
  'sendSnapshot() closes what it was given when the follower goes away at "%s"',
  async last => {
    const source = sourceOf(500);
    source.onSnapshotStep = id => source.commit(id, new Map([[1, pageOf(1, 4096)]]), 500);
    await expect(sendSnapshot(portUntil(last).port, source)).rejects.toThrow();
    expect(source.openCount).toBe(0);
  },
);

test('sendSnapshot() ends with the log, also where that has become longer than the database', async () => {
  const source = sourceOf(500);
  source.cheapestBytesMax = 0;
  source.onSnapshotStep = id => source.commit(id, new Map([[1, pageOf(1, 4096)]]), 500);
  const {port, sent} = portUntil(undefined);
  expect(await sendSnapshot(port, source)).toEqual({at: 'sent', txid: source.get(A).position.txid});
  expect(sent.slice(-2)).toEqual(['chunk', 'end']);
  expect(source.openCount).toBe(0);
});

test('SnapshotStream: close() ends the reading once, whether or not it was begun', async () => {
  let endCount = 0;
  const stream = new SnapshotStream(
    () => undefined,
    () => endCount++,
  );
  stream.hear({
    type: 'snapshot-start',
    request: 1,
    from: EMPTY_POSITION,
    fromTerm: 1n,
    pageSize: 4096,
    pageCount: 1,
  });
  const snapshot = await stream.started(new AbortController().signal);
  const reading = snapshot?.chunks[Symbol.asyncIterator]().next();
  await snapshot?.close();
  await snapshot?.close();
  expect(endCount).toBe(1);
  await expect(reading).rejects.toThrow('the stream has ended');
});
