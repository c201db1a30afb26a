import {setTimeout as sleep, setImmediate as turn} from 'node:timers/promises';
import fc from 'fast-check';
import {expect, test} from 'vitest';
import {WebSocket} from 'ws';
import {encodeFrame, STREAM_PATH} from '../../src/cluster/wire.ts';
import {expectEqual, idOf, isEqual, pageOf, Relay, startFollower, startPrimary, until} from './harness.ts';
import {RecordError} from './memory-record.ts';
import {MemorySink} from './memory-sink.ts';
import {MemorySource} from './memory-source.ts';

/** Small numbers from a seed, so that a run can be repeated as far as the network allows. */
function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return below => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return (state >>> 4) % below;
  };
}

/** One random change of the source. */
function change(source: MemorySource, random: (below: number) => number, step: number): void {
  const ids = [...source.all.keys()];
  const kind = ids.length === 0 ? 0 : random(40);
  const id = ids[random(Math.max(1, ids.length))];
  if (kind === 0 && ids.length < 8) {
    source.create(idOf(step + 1), `db-${step}`, 512 << random(4));
    return;
  }
  if (id === undefined) return;
  if (kind === 1) source.drop(id);
  else if (kind === 2) source.rename(id, `renamed-${step}`);
  else if (kind === 3) source.prune(id, random(6));
  else {
    const {pages} = source.get(id);
    const count = random(12) === 0 ? 1 + random(600) : Math.max(1, pages.count + random(3) - 1);
    const changes = Array.from({length: random(4)}, (_, index) => {
      return [1 + random(count), pageOf(step * 7 + index, pages.pageSize)] as const;
    });
    source.commit(id, new Map(changes), count);
  }
}

/** Another process of the same node connects, takes the place of the first and goes away. */
async function intrude(port: number, nodeId: string): Promise<void> {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${STREAM_PATH}`);
  ws.on('error', () => {});
  ws.on('open', () => {
    ws.send(encodeFrame({type: 'hello', nodeId, clusterId: '', termSeen: 0n}));
    ws.send(encodeFrame({type: 'positions', isLast: true, entries: []}));
  });
  await sleep(5);
  ws.terminate();
}

/** So tight that every rule of who may send comes into play. */
const tightLimits = {
  socketBytesMax: 16_000,
  bulkSocketBytesMax: 4_000,
  databaseWindowBytes: 8_000,
  sessionWindowBytes: 20_000,
  smallTransfersMax: 1,
  bulkTransfersMax: 1,
};

async function runOnce(seed: number): Promise<void> {
  const random = randomOf(seed);
  const source = new MemorySource();
  source.compactAfterCount = 2 + random(10);
  source.onSnapshotStep = id => {
    if (source.all.has(id) && random(2) === 0) {
      const {pages} = source.get(id);
      source.commit(
        id,
        new Map([[1, pageOf(random(999), pages.pageSize)]]),
        Math.max(1, pages.count - random(3)),
      );
    }
  };
  const sinks = [new MemorySink({nodeId: 'f1'}), new MemorySink({nodeId: 'f2'})];
  let isRough = true;
  for (const sink of sinks) {
    sink.onStep = async what => {
      if (!isRough) return;
      if (random(3) === 0) await turn();
      if (random(25) === 0) await sleep(random(8));
      const mayFail = what === 'apply' || what === 'finish' || what === 'begin' || what === 'pages';
      if (mayFail && random(40) === 0)
        throw new RecordError(random(2) === 0 ? 'LTX_CHECKSUM' : 'EIO', 'made up');
    };
  }
  const primary = await startPrimary(source, random(2) === 0 ? tightLimits : {});
  const relay = await Relay.start(primary.port);
  relay.cutAfterBytes = () => (isRough && random(3) > 0 ? random(400_000) : undefined);
  const followers = sinks.map(sink => startFollower(sink, relay.url));
  try {
    const steps = 150 + random(200);
    for (let step = 0; step < steps; step++) {
      change(source, random, step);
      if (random(6) === 0) await turn();
      if (random(20) === 0) await sleep(random(15));
      if (random(50) === 0) relay.drop();
      if (random(60) === 0) await intrude(primary.port, 'f1');
    }
    isRough = false;
    await until('equal', () => sinks.every(sink => isEqual(source, sink)));
    for (const sink of sinks) {
      expectEqual(source, sink);
      expect(sink.orphans.size).toBe(0);
    }
    await until('caught up', () => followers.every(({client}) => client.state.at === 'caught-up'));
    await until('acknowledged', () => {
      return [...source.all.values()].every(
        ({id, position}) => (source.needed.get(id) ?? 0n) === position.txid,
      );
    });
    await until('nothing in flight', () =>
      primary.server.followers().every(({inFlightBytes}) => inFlightBytes === 0),
    );
    expect(primary.log.count('follower broke the protocol')).toBe(0);
  } finally {
    for (const follower of followers) await follower.stop();
    await relay.stop();
    await primary.stop();
  }
  expect(sinks.map(({openTransferCount}) => openTransferCount)).toEqual([0, 0]);
}

test('whatever happens, the followers end up equal to the primary', async () => {
  await fc.assert(fc.asyncProperty(fc.integer(), runOnce), {
    numRuns: 15,
    endOnFailure: true,
    interruptAfterTimeLimit: 25_000,
  });
}, 60_000);
