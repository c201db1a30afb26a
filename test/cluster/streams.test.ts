import {once} from 'node:events';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, expect, test} from 'vitest';
import {WebSocket} from 'ws';
import {defaultStreamLimits} from '../../src/cluster/stream-limits.ts';
import {decodeFrame, encodeFrame, type Frame, STREAM_PATH} from '../../src/cluster/wire.ts';
import {EMPTY_POSITION, toTxid} from '../../src/ltx/position.ts';
import {expectEqual, idOf, isEqual, pageOf, startFollower, startPrimary, until} from './harness.ts';
import {RecordError} from './memory-record.ts';
import {MemorySink} from './memory-sink.ts';
import {MemorySource} from './memory-source.ts';

const A = idOf(0xa);
const B = idOf(0xb);
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function primaryOf(source: MemorySource, limits = {}) {
  const primary = await startPrimary(source, limits);
  cleanups.push(primary.stop);
  return primary;
}

function followerOf(sink: MemorySink, url: string, limits = {}) {
  const follower = startFollower(sink, url, limits);
  cleanups.push(follower.stop);
  return follower;
}

function fill(source: MemorySource, id: string, count: number, pageCount = 4): void {
  for (let index = 0; index < count; index++) {
    source.commit(id, new Map([[(index % pageCount) + 1, pageOf(index + 1)]]), pageCount);
  }
}

test('an empty follower adopts the cluster and gets every database', async () => {
  const source = new MemorySource({term: 7n});
  source.create(A, 'a.db');
  source.create(B, 'tenants/b.sqlite');
  fill(source, A, 3);
  fill(source, B, 30);
  source.prune(B, 2);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  const follower = followerOf(sink, primary.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  expectEqual(source, sink);
  expect(sink.cluster).toBe('cluster-a');
  expect(sink.highestTerm).toBe(7n);
  expect(source.snapshotCount).toBe(1); // B only: A's log is all there.
  expect(primary.acks.at(-1)?.nodeId).toBe('follower');
  expect(primary.server.acked('follower', A)).toEqual(source.get(A).position);
});

test('commits reach followers as they happen, each as one record', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  fill(source, A, 1);
  const sinks = [new MemorySink({nodeId: 'f1'}), new MemorySink({nodeId: 'f2'})];
  const primary = await primaryOf(source);
  const followers = sinks.map(sink => followerOf(sink, primary.url));
  await until('caught up', () => followers.every(follower => follower.client.state.at === 'caught-up'));
  const lookups = source.catchUpCount;
  for (let index = 0; index < 200; index++) {
    source.commit(A, new Map([[1, pageOf(index)]]), 4);
    if (index % 20 === 0) await sleep(1);
  }
  await until('equal', () => sinks.every(sink => isEqual(source, sink)));
  for (const sink of sinks) expectEqual(source, sink);
  expect(source.catchUpCount).toBe(lookups);
  await until('acks', () => source.needed.get(A) === source.get(A).position.txid);
});

test('a follower that was away gets what it missed: compacted, and as a snapshot once the log is too short', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  fill(source, A, 2);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  const first = followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  await first.stop();
  fill(source, A, 100);
  const second = followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  await second.stop();
  expect(source.snapshotCount).toBe(0);
  fill(source, A, 100);
  source.prune(A, 5);
  followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
  expect(source.snapshotCount).toBe(1);
  expect(sink.rewinds.map(({reason}) => reason)).toEqual(['unverifiable']);
});

test('names: created, renamed, dropped while following and while away, round in a circle too', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  source.create(B, 'b.db');
  fill(source, A, 1);
  fill(source, B, 2);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  const first = followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  source.create(idOf(0xc), 'c.db');
  fill(source, idOf(0xc), 3);
  source.rename(A, 'x.db');
  source.drop(B);
  source.create(idOf(0xd), 'b.db');
  fill(source, idOf(0xd), 1);
  await until('equal', () => isEqual(source, sink));
  await first.stop();
  source.rename(A, 'tmp');
  source.rename(idOf(0xc), 'x.db');
  source.rename(A, 'c.db');
  source.drop(idOf(0xd));
  source.create(idOf(0xe), 'b.db');
  followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
  expect(sink.dropped).toEqual([B, idOf(0xd)]);
  expect(sink.orphans.size).toBe(0);
});

test('an empty primary makes nobody delete anything: unknown databases are orphans, emptied ones are left alone', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  source.create(B, 'b.db');
  fill(source, A, 3);
  fill(source, B, 3);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  const first = followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  await first.stop();
  const empty = new MemorySource({nodeId: 'other'});
  empty.create(B, 'b.db');
  const second = await primaryOf(empty);
  const follower = followerOf(sink, second.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  expect(sink.dropped).toEqual([]);
  expect([...sink.orphans.keys()]).toEqual([A]);
  expect(sink.get(B).position).toEqual(source.get(B).position);
  expect(second.log.count('follower has data of a database that is empty here')).toBe(1);
});

test('a diverged follower is told to rewind, keeps its log until then, and gets a snapshot', async () => {
  const source = new MemorySource({term: 1n});
  source.create(A, 'a.db');
  fill(source, A, 5);
  const sink = new MemorySink();
  const old = await primaryOf(source);
  const first = followerOf(sink, old.url);
  await until('equal', () => isEqual(source, sink));
  await first.stop();
  const source2 = new MemorySource({term: 2n, nodeId: 'primary-2'});
  source2.create(A, 'a.db');
  fill(source2, A, 4);
  source2.commit(A, new Map([[2, pageOf(99)]]), 6);
  const next = await primaryOf(source2);
  const follower = followerOf(sink, next.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  expectEqual(source2, sink);
  expect(sink.rewinds).toEqual([{id: A, reason: 'diverged', position: source.get(A).position}]);
  expect(sink.highestTerm).toBe(2n);
});

test('another cluster is refused on both ends, and nothing is deleted', async () => {
  const source = new MemorySource({clusterId: 'cluster-a'});
  const primary = await primaryOf(source);
  const sink = new MemorySink({clusterId: 'cluster-b'});
  sink.all.set(A, {...new MemorySource().create(A, 'a.db'), id: A, name: 'a.db'});
  const follower = followerOf(sink, primary.url);
  await until('refused', () => follower.client.state.at === 'disconnected');
  await until('refused often', () => follower.states.filter(({at}) => at === 'disconnected').length > 3);
  expect(follower.log.count('primary not followed')).toBe(1);
  expect(String(follower.log.lines.find(({level}) => level === 'error')?.fields.error)).toMatch(
    /cluster "cluster-b", this node of "cluster-a"/,
  );
  expect(sink.all.size).toBe(1);
  expect(sink.cluster).toBe('cluster-b');
});

test('a follower with databases and no cluster ID is refused', async () => {
  const primary = await primaryOf(new MemorySource());
  const sink = new MemorySink();
  await sink.create(A, 'a.db');
  const follower = followerOf(sink, primary.url);
  await until('refused', () => follower.client.state.at === 'disconnected');
  expect(sink.cluster).toBeUndefined();
  expect(sink.all.size).toBe(1);
});

test('a primary of a lower term than the follower has seen refuses and learns of it', async () => {
  const source = new MemorySource({term: 4n});
  const primary = await primaryOf(source);
  const sink = new MemorySink({clusterId: 'cluster-a'});
  sink.highestTerm = 5n;
  const follower = followerOf(sink, primary.url);
  await until('refused', () => follower.client.state.at === 'disconnected');
  expect(primary.higherTerms[0]).toBe(5n);
});

test('a node does not follow itself', async () => {
  const primary = await primaryOf(new MemorySource({nodeId: 'same'}));
  const follower = followerOf(new MemorySink({nodeId: 'same'}), primary.url);
  await until('refused', () => follower.client.state.at === 'disconnected');
  expect(String(follower.log.lines.find(({level}) => level === 'error')?.fields.error)).toMatch(
    /own ID "same"/,
  );
});

async function talkTo(port: number, frames: readonly Uint8Array[]): Promise<Frame[]> {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${STREAM_PATH}`);
  const answers: Frame[] = [];
  ws.on('message', data => answers.push(decodeFrame(data as Buffer)));
  ws.on('error', () => {});
  await once(ws, 'open');
  for (const frame of frames) ws.send(frame);
  await once(ws, 'close');
  return answers;
}

test('another version is refused with a message that names both', async () => {
  const primary = await primaryOf(new MemorySource());
  const hello = encodeFrame({type: 'hello', nodeId: 'n', clusterId: '', termSeen: 0n});
  const later = Buffer.concat([hello.subarray(0, 5), Buffer.from([0, 9]), Buffer.from('something else')]);
  const [answer] = await talkTo(primary.port, [later]);
  expect(answer).toMatchObject({type: 'refused', code: 'version'});
  expect(answer.type === 'refused' && answer.message).toMatch(/version 9, this node version 1/);
});

test('what is no handshake, or breaks the protocol later, ends the connection and no more', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  fill(source, A, 1);
  const primary = await primaryOf(source, {handshakeMs: 200});
  const hello = encodeFrame({type: 'hello', nodeId: 'n', clusterId: '', termSeen: 0n});
  const positions = encodeFrame({type: 'positions', isLast: true, entries: []});
  const ack = encodeFrame({
    type: 'ack',
    entries: [{id: A, position: {...EMPTY_POSITION, txid: toTxid(9n)}}],
  });
  const tooMuch = encodeFrame({type: 'credit', entries: [{id: A, size: 1_000_000}]});
  const welcome = encodeFrame({type: 'welcome', nodeId: 'n', clusterId: '', term: 0n});
  for (const frames of [[], [positions], [hello], [Buffer.from('junk')], [hello, hello]]) {
    const answers = await talkTo(primary.port, frames);
    expect(answers.map(({type}) => type)).toEqual(['refused']);
  }
  for (const frame of [ack, tooMuch, welcome, Buffer.alloc(0)]) {
    const answers = await talkTo(primary.port, [hello, positions, frame]);
    expect(answers.at(-1)).toMatchObject({type: 'refused', code: 'protocol'});
  }
  const sink = new MemorySink();
  followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
});

test('a record that does not fit is not applied but asked for again; after three failures a snapshot is', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  fill(source, A, 2);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  const follower = followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  let failures = 1;
  sink.onStep = async what => {
    if (what === 'apply' && failures-- > 0) throw new RecordError('LTX_CHECKSUM', 'made up');
  };
  fill(source, A, 2);
  await until('equal', () => isEqual(source, sink));
  expect(source.snapshotCount).toBe(0);
  failures = 3;
  fill(source, A, 2);
  await until('equal', () => isEqual(source, sink));
  expect(source.snapshotCount).toBe(1);
  expectEqual(source, sink);
  expect(follower.log.count('database not applied')).toBe(4);
  expect(follower.client.state.at).toBe('caught-up');
});

test('other failures of a follower are retried without a snapshot, and hold up no other database', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  source.create(B, 'b.db');
  fill(source, A, 1);
  fill(source, B, 1);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  let isFull = true;
  sink.onStep = async (what, id) => {
    if (what === 'apply' && id === A && isFull) throw new RecordError('ENOSPC', 'no space');
  };
  fill(source, A, 5);
  fill(source, B, 5);
  await until('b', () => sink.get(B).position.txid === source.get(B).position.txid);
  await sleep(300);
  expect(sink.get(A).position.txid).toBe(1n);
  isFull = false;
  await until('equal', () => isEqual(source, sink));
  expect(source.snapshotCount).toBe(0);
});

test('a follower whose content has silently changed gets a snapshot in the end', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  fill(source, A, 2);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  sink.get(A).pages.set(3, pageOf(1234));
  source.commit(A, new Map([[1, pageOf(77)]]), 4);
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
  expect(source.snapshotCount).toBe(1);
});

test('a snapshot is consistent although writes go on while it is read', async () => {
  const source = new MemorySource();
  const pageSize = 4096;
  source.create(A, 'a.db', pageSize);
  source.commit(A, new Map(), 500);
  source.prune(A, 0);
  let count = 0;
  source.onSnapshotStep = id => {
    count++;
    const pageCount = count % 2 === 0 ? 700 : 300;
    source.commit(id, new Map([[1 + (count % 300), pageOf(count, pageSize)]]), pageCount);
  };
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
  expect(count).toBeGreaterThan(3);
  expect(sink.openTransferCount).toBe(0);
});

test('a log that fails under a transfer is tried again', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db', 4096);
  source.commit(A, new Map(), 500);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  const catchUp = source.catchUp.bind(source);
  let failures = 3; // The first look finds it too large for one frame.
  source.catchUp = async (id, after, choice) => {
    const part = await catchUp(id, after, choice);
    if (part === undefined || failures-- <= 0) return part;
    async function* broken() {
      yield new Uint8Array(1000);
      throw new Error('disk');
    }
    return {...part, chunks: broken()};
  };
  followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
  expect(primary.log.count('database not sent')).toBe(2);
  expect(sink.openTransferCount).toBe(0);
});

test("heartbeats tell the primary's clock only to a follower that has everything", async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  fill(source, A, 1);
  const sink = new MemorySink();
  const primary = await primaryOf(source, {heartbeatMs: 20});
  const follower = followerOf(sink, primary.url);
  await until('heard', () => sink.heardMs > 0);
  expect(follower.client.state.at).toBe('caught-up');
  let release: () => void = () => {};
  const held = new Promise<void>(resolve => {
    release = resolve;
  });
  sink.onStep = async () => await held;
  fill(source, A, 1);
  await sleep(50);
  const heard = sink.heardMs;
  await sleep(150);
  expect(sink.heardMs).toBe(heard);
  release();
  await until('heard again', () => sink.heardMs > heard);
});

test('the same node connecting again replaces its old connection', async () => {
  const source = new MemorySource();
  source.create(A, 'a.db');
  fill(source, A, 1);
  const primary = await primaryOf(source);
  const first = followerOf(new MemorySink(), primary.url, {
    reconnectDelayMinMs: 60_000,
    reconnectDelayMs: 60_000,
  });
  await until('caught up', () => first.client.state.at === 'caught-up');
  const second = followerOf(new MemorySink(), primary.url);
  await until('caught up', () => second.client.state.at === 'caught-up');
  await until('replaced', () => first.client.state.at === 'disconnected');
  expect(primary.server.followers().length).toBe(1);
});

test('closing the primary tells the followers, and frees every socket', async () => {
  const source = new MemorySource();
  const primary = await startPrimary(source);
  const follower = followerOf(new MemorySink(), primary.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  await primary.stop();
  await until('told', () => follower.client.state.at === 'disconnected');
  expect(String(follower.log.lines.find(({level}) => level === 'warn')?.fields.error)).toMatch(/closing/);
});

test('ten thousand databases are announced in pages', async () => {
  const source = new MemorySource();
  for (let number = 1; number <= 10_000; number++) source.create(idOf(number), `tenants/${number}.db`);
  for (let number = 1; number <= 100; number++) fill(source, idOf(number * 7), 1, 1);
  const sink = new MemorySink();
  const primary = await primaryOf(source);
  const first = followerOf(sink, primary.url);
  await until('equal', () => isEqual(source, sink));
  await first.stop();
  fill(source, idOf(5), 3, 1);
  const second = followerOf(sink, primary.url);
  await until('caught up', () => second.client.state.at === 'caught-up');
  expect(isEqual(source, sink)).toBe(true);
});

test('limits leave room for what they bound', () => {
  const limits = defaultStreamLimits;
  expect(limits.applyBacklogBytesMax).toBeGreaterThan(limits.sessionWindowBytes);
  expect(limits.socketBytesMax).toBeGreaterThan(limits.bulkSocketBytesMax);
});
