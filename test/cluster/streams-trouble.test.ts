import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, expect, test} from 'vitest';
import {defaultStreamLimits} from '../../src/cluster/stream-limits.ts';
import {
  expectEqual,
  idOf,
  isEqual,
  pageOf,
  Relay,
  startFollower as start,
  startPrimary as startServer,
  until,
} from './harness.ts';
import {MemorySink} from './memory-sink.ts';
import {MemorySource} from './memory-source.ts';

const A = idOf(0xa);
const B = idOf(0xb);
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startPrimary(source: MemorySource, limits = {}) {
  const primary = await startServer(source, limits);
  cleanups.push(primary.stop);
  return primary;
}

function startFollower(sink: MemorySink, url: string, limits = {}) {
  const follower = start(sink, url, limits);
  cleanups.push(follower.stop);
  return follower;
}

async function startRelay(port: number): Promise<Relay> {
  const relay = await Relay.start(port);
  cleanups.push(() => relay.stop());
  return relay;
}

function sourceOf(...ids: readonly string[]): MemorySource {
  const source = new MemorySource();
  for (const id of ids) {
    source.create(id, `${id}.db`);
    source.commit(id, new Map([[1, pageOf(1)]]), 2);
  }
  return source;
}

test.each(['drop', 'freeze', 'halfClose'] as const)(
  'a line that does "%s" is noticed on both ends',
  async trouble => {
    const source = sourceOf(A);
    const sink = new MemorySink();
    const primary = await startPrimary(source);
    const relay = await startRelay(primary.port);
    const follower = startFollower(sink, relay.url, {reconnectDelayMinMs: 5_000, reconnectDelayMs: 5_000});
    await until('caught up', () => follower.client.state.at === 'caught-up');
    const begun = performance.now();
    relay[trouble]();
    await until('noticed', () => follower.client.state.at === 'disconnected');
    await until('noticed by the primary', () => primary.server.followers().length === 0);
    // The bound is the heartbeat's: 2.5 s of silence, found at the next half second.
    expect(performance.now() - begun).toBeLessThan(defaultStreamLimits.silenceMs + 2_000);
    expect(follower.log.count('primary lost')).toBe(1);
    await until('log no longer needed', () => !source.needed.has(A));
  },
);

test('a follower comes back after its line was cut, and after its primary was away, and says so once', async () => {
  const source = sourceOf(A);
  const sink = new MemorySink();
  const primary = await startServer(source);
  const relay = await startRelay(primary.port);
  const follower = startFollower(sink, relay.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  relay.drop();
  source.commit(A, new Map([[1, pageOf(2)]]), 2);
  await until('equal', () => isEqual(source, sink));
  await primary.stop();
  await until('several attempts', () => follower.states.length > 15);
  const lines = follower.log.lines.filter(({level}) => level === 'warn' || level === 'error');
  expect(lines.length).toBeLessThanOrEqual(3);
});

test('small commits of one database arrive in between the parts of a large transfer of another', async () => {
  const source = sourceOf(A, B);
  const sink = new MemorySink();
  const primary = await startPrimary(source);
  const follower = startFollower(sink, primary.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  const order: string[] = [];
  sink.onStep = async (what, id) => {
    order.push(`${id === A ? 'large' : 'small'} ${what}`);
    if (what === 'chunk') await sleep(2);
  };
  const pageCount = 40_000; // 20 MB: several times what the window and the socket take.
  source.commit(A, new Map(), pageCount);
  for (let index = 0; sink.get(A).position.txid < 2n; index++) {
    source.commit(B, new Map([[1, pageOf(index)]]), 2);
    await sleep(2);
  }
  await until('equal', () => isEqual(source, sink));
  const first = order.indexOf('large chunk');
  const last = order.lastIndexOf('large chunk');
  const between = order.slice(first, last).filter(step => step === 'small apply').length;
  expect(last - first - between).toBeGreaterThan(50);
  expect(between).toBeGreaterThan(10);
  expectEqual(source, sink);
});

test('a third large transfer waits, and a new small database does not', async () => {
  const large = [idOf(1), idOf(2), idOf(3)];
  const source = sourceOf(...large);
  for (const id of large) source.commit(id, new Map(), 4_000);
  const sink = new MemorySink();
  let isHeld = true;
  let openMax = 0;
  sink.onStep = async (what, id) => {
    openMax = Math.max(openMax, sink.openTransferCount);
    while (isHeld && what === 'chunk' && large.includes(id)) await sleep(5);
  };
  const primary = await startPrimary(source);
  startFollower(sink, primary.url);
  await until('two transfers', () => sink.openTransferCount === 2);
  source.create(B, 'b.db');
  source.commit(B, new Map([[1, pageOf(1)]]), 3);
  await until('small one', () => sink.all.get(B)?.position.txid === 1n);
  isHeld = false;
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
  expect(openMax).toBeLessThanOrEqual(3);
});

test('a database that cannot be applied for a while holds up no other, and its backlog stays small', async () => {
  const source = sourceOf(A, B);
  const sink = new MemorySink();
  const primary = await startPrimary(source);
  const follower = startFollower(sink, primary.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  let isBusy = true;
  sink.onStep = async (_, id) => {
    while (isBusy && id === A) await sleep(5);
  };
  for (let index = 0; index < 3_000; index++) {
    source.commit(
      A,
      new Map([
        [1, pageOf(index)],
        [2, pageOf(index + 1)],
      ]),
      40,
    );
    if (index % 10 === 0) source.commit(B, new Map([[1, pageOf(index)]]), 2);
    if (index % 50 === 0) await sleep(1);
  }
  await until('the other one', () => sink.get(B).position.txid === source.get(B).position.txid);
  const [status] = primary.server.followers();
  expect(status.inFlightBytes).toBeGreaterThan(0);
  expect(status.inFlightBytes).toBeLessThan(defaultStreamLimits.databaseWindowBytes + 300_000);
  expect(sink.get(A).position.txid).toBe(1n);
  isBusy = false;
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
});

test('a follower that does not read costs the primary a bounded amount of memory', async () => {
  const ids = Array.from({length: 30}, (_, index) => idOf(index + 1));
  const source = sourceOf(...ids);
  const sink = new MemorySink();
  const primary = await startPrimary(source, {silenceMs: 600_000});
  const relay = await startRelay(primary.port);
  const limits = {silenceMs: 600_000};
  const follower = startFollower(sink, relay.url, limits);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  relay.freeze();
  let bufferedMax = 0;
  for (let index = 0; index < 6_000; index++) {
    const id = ids[index % ids.length];
    source.commit(id, new Map(Array.from({length: 32}, (_, at) => [at + 1, pageOf(index + at)])), 32);
    const [status] = primary.server.followers();
    bufferedMax = Math.max(bufferedMax, status.bufferedBytes);
    if (index % 200 === 0) await sleep(1);
  }
  // 6,000 records of 16 KiB are 100 MB.
  expect(bufferedMax).toBeGreaterThan(0);
  expect(bufferedMax).toBeLessThan(defaultStreamLimits.socketBytesMax + 300_000);
  expect(primary.server.followers()[0].inFlightBytes).toBeLessThanOrEqual(
    defaultStreamLimits.sessionWindowBytes,
  );
  relay.drop();
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
});

test('a follower stops although a database waits for its readers', async () => {
  const source = sourceOf(A);
  const sink = new MemorySink();
  const primary = await startPrimary(source);
  const follower = startFollower(sink, primary.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  let isWaiting = false;
  sink.onStep = async () => {
    isWaiting = true;
    await new Promise(() => {});
  };
  source.commit(A, new Map([[1, pageOf(2)]]), 2);
  await until('waiting', () => isWaiting);
  await follower.stop();
  expect(follower.client.state.at).toBe('stopped');
  expect(sink.get(A).position.txid).toBe(1n);
  expect(follower.log.count('database not applied')).toBe(0);
});

test('the window that a dropped database had taken is free for the others', async () => {
  const source = sourceOf(A, B);
  const sink = new MemorySink();
  const primary = await startPrimary(source, {sessionWindowBytes: 2_000, databaseWindowBytes: 2_000});
  const follower = startFollower(sink, primary.url);
  await until('caught up', () => follower.client.state.at === 'caught-up');
  let isBusy = true;
  sink.onStep = async (what, id) => {
    while (isBusy && what === 'apply' && id === A) await sleep(5);
  };
  source.commit(A, new Map(), 20); // More than the window by itself.
  source.commit(B, new Map([[1, pageOf(2)]]), 2);
  await sleep(50);
  expect(sink.get(B).position.txid).toBe(1n);
  source.drop(A);
  await until('the other one', () => sink.get(B).position.txid === 2n);
  isBusy = false;
  await until('equal', () => isEqual(source, sink));
  expectEqual(source, sink);
});
