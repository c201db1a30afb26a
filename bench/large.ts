import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {copy, copyMany} from './copies.ts';
import type {FerriteNode} from './ferrite-node.ts';
import {type CountResult, type RateResult, UNPACED, type WriterResult} from './jobs.ts';
import {LoadProcess, load} from './load-process.ts';
import {atLeast, atMost, type Measurement, median, type Row} from './measurement.ts';
import type {Sizes} from './options.ts';
import type {Rig} from './rig.ts';

const MIB = 1024 ** 2;
const LARGE = 'large.db';
const OTHER = 'other.db';
const ROW_BYTES = 4000;
const PACED_PER_SECOND = 200;
const BEFORE_MS = 2000;
const FOLLOW_MS = 120_000;
const START_COUNT = 3;

/** What large databases, and many small ones, cost: a start, a VACUUM, a new follower. */
export const largeMeasurements: readonly Measurement[] = [
  {name: 'start-large', run: measureStartLarge},
  {name: 'start-many', run: measureStartMany},
  {name: 'vacuum', run: measureVacuum},
  {name: 'snapshot', run: measureSnapshot},
];

/** A database of the wanted size on the bare disk, made once. */
async function largeFile(rig: Rig, sizes: Sizes): Promise<string> {
  const path = join(await rig.folder('large'), LARGE);
  const made = largeFiles.get(rig);
  if (made !== undefined) return made;
  rig.tell(`  making a database of ${sizes.largeBytes / MIB} MiB`);
  await load({
    kind: 'fill',
    path,
    rowCount: Math.ceil(sizes.largeBytes / 4096),
    rowBytes: ROW_BYTES,
    journalMode: 'WAL',
  });
  largeFiles.set(rig, path);
  return path;
}

const largeFiles = new WeakMap<Rig, string>();
const largeNodes = new WeakMap<Rig, FerriteNode>();

/** A primary with the large database, copied into its mount. */
async function largeNode(rig: Rig, sizes: Sizes): Promise<FerriteNode> {
  const made = largeNodes.get(rig);
  if (made !== undefined) return made;
  const from = await largeFile(rig, sizes);
  const node = await rig.startNode('large-primary');
  largeNodes.set(rig, node);
  await copy(from, node.path(LARGE));
  await waitForPosition(node, LARGE);
  return node;
}

/** Waits until the copy is a transaction in the log. */
async function waitForPosition(node: FerriteNode, name: string): Promise<void> {
  const end = performance.now() + FOLLOW_MS;
  while (/^0{16}\/|^$/.test((await node.position(name)) ?? '')) {
    if (performance.now() > end) throw new Error(`Cannot go on: "${name}" is not captured\n${node.logTail}`);
    await sleep(10);
  }
}

async function restartTimes(node: FerriteNode): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < START_COUNT; i++) {
    await node.stop();
    times.push(await node.start());
  }
  return median(times) / 1000;
}

async function measureStartLarge(rig: Rig, sizes: Sizes): Promise<Row[]> {
  const seconds = await restartTimes(await largeNode(rig, sizes));
  return [
    {
      title: `start to "ready", a database of ${sizes.largeBytes / MIB} MiB`,
      unit: 's',
      columns: {alone: seconds},
      checks: [atMost('start', seconds, 1, 's')],
    },
  ];
}

async function measureStartMany(rig: Rig, sizes: Sizes): Promise<Row[]> {
  const node = await rig.startNode('many-primary');
  const from = join(await rig.folder('small'), 'small.db');
  await load({kind: 'fill', path: from, rowCount: 10, rowBytes: 100, journalMode: 'DELETE'});
  rig.tell(`  making ${sizes.smallCount} small databases`);
  await copyMany(from, node.path('small'), sizes.smallCount);
  const seconds = await restartTimes(node);
  await node.destroy();
  return [
    {
      title: `start to "ready", ${sizes.smallCount} small databases`,
      unit: 's',
      columns: {alone: seconds},
      checks: [atMost('start', seconds, 3, 's')],
    },
  ];
}

interface VacuumResult {
  readonly seconds: number;
  readonly stallMs: number;
}

/** VACUUM while another database in the same folder takes commits. */
async function vacuumIn(directory: string): Promise<VacuumResult> {
  const writer = await new LoadProcess<WriterResult>({
    kind: 'write-on',
    path: join(directory, OTHER),
    perSecond: PACED_PER_SECOND,
  }).ready();
  await sleep(BEFORE_MS / 2);
  const {perSecond} = await load<RateResult>({kind: 'vacuum', path: join(directory, LARGE)});
  const {commitMaxMs} = await writer.stop();
  return {seconds: 1 / perSecond, stallMs: commitMaxMs};
}

async function measureVacuum(rig: Rig, sizes: Sizes): Promise<Row[]> {
  const node = await largeNode(rig, sizes);
  await largeFile(rig, sizes);
  const bare = await vacuumIn(await rig.folder('large'));
  const pid = node.daemonPid;
  writeFileSync(`/proc/${pid}/clear_refs`, '5'); // Makes the peak begin anew (proc_pid_clear_refs(5)).
  const here = await vacuumIn(node.mount);
  const peakMib = peakMemoryMib(pid);
  const title = `VACUUM of ${sizes.largeBytes / MIB} MiB`;
  return [
    {title: `${title}, time`, unit: 's', columns: {bare: bare.seconds, alone: here.seconds}, checks: []},
    {
      title: `${title}, daemon's peak memory`,
      unit: 'MiB',
      columns: {alone: peakMib},
      checks: [atMost('peak', peakMib, 300, 'MiB')],
    },
    {
      title: `${title}, longest commit of another database`,
      unit: 'ms',
      columns: {bare: bare.stallMs, alone: here.stallMs},
      checks: [atMost('stall', here.stallMs, 50, 'ms')],
    },
  ];
}

function peakMemoryMib(pid: number): number {
  const found = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(found?.[1]) / 1024;
}

async function measureSnapshot(rig: Rig, sizes: Sizes): Promise<Row[]> {
  if (rig.isAlone) return [];
  const primary = await largeNode(rig, sizes);
  const quiet = await new LoadProcess<WriterResult>({
    kind: 'write-on',
    path: primary.path(LARGE),
    perSecond: UNPACED,
  }).ready();
  await sleep(BEFORE_MS);
  const before = await quiet.stop();
  const follower = await rig.createNode('large-follower', primary);
  const writer = await new LoadProcess<WriterResult>({
    kind: 'write-on',
    path: primary.path(LARGE),
    perSecond: UNPACED,
  }).ready();
  const start = performance.now();
  const starting = follower.start(); // "ready" comes later: when it has caught up with the writes as well.
  starting.catch(() => undefined);
  await waitForPosition(follower, LARGE);
  const seconds = (performance.now() - start) / 1000;
  const during = await writer.stop();
  await starting;
  await follower.catchUp(primary, LARGE, FOLLOW_MS);
  const counts = await Promise.all(
    [primary, follower].map(node => load<CountResult>({kind: 'count', path: node.path(LARGE)})),
  );
  const isEqual =
    counts[0].rowCount === counts[1].rowCount && counts.every(({integrity}) => integrity === 'ok');
  if (!isEqual) throw new Error(`Cannot trust the snapshot: ${JSON.stringify(counts)}`);
  const speed = sizes.largeBytes / 1e6 / seconds;
  const kept = during.commitCount / during.elapsedMs / (before.commitCount / before.elapsedMs);
  return [
    {
      title: `snapshot of ${sizes.largeBytes / MIB} MiB to a new follower, under writes`,
      unit: 'MB/s',
      columns: {cluster: speed},
      checks: [atLeast('speed', speed, 80, 'MB/s'), atLeast('writes keep', kept, 0.5)],
      note: 'from the start of the follower’s process',
    },
  ];
}
