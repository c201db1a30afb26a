import {join} from 'node:path';
import type {InsertJob, Job, RateResult} from './jobs.ts';
import {LoadProcess, load} from './load-process.ts';
import {atLeast, type Check, type Column, type Measurement, median, type Row} from './measurement.ts';
import type {Sizes} from './options.ts';
import type {Place, Rig} from './rig.ts';

interface WriteLoad {
  readonly name: string;
  readonly title: string;
  readonly unit: string;
  readonly journalMode: InsertJob['journalMode'];
  readonly synchronous: InsertJob['synchronous'];
  /** Instead of single inserts, one transaction of many. */
  readonly isBulk: boolean;
  readonly ofBareMin: number;
  readonly ofPeerMin?: number;
}

const loads: readonly WriteLoad[] = [
  {
    name: 'wal-normal',
    title: 'inserts of 100 bytes, WAL, NORMAL',
    unit: 'tx/s',
    journalMode: 'WAL',
    synchronous: 'NORMAL',
    isBulk: false,
    ofBareMin: 0.1,
    ofPeerMin: 2,
  },
  {
    name: 'wal-full',
    title: 'inserts of 100 bytes, WAL, FULL',
    unit: 'tx/s',
    journalMode: 'WAL',
    synchronous: 'FULL',
    isBulk: false,
    ofBareMin: 0.5,
  },
  {
    name: 'delete',
    title: 'inserts of 100 bytes, DELETE',
    unit: 'tx/s',
    journalMode: 'DELETE',
    synchronous: 'FULL',
    isBulk: false,
    ofBareMin: 0.45,
  },
  {
    name: 'bulk',
    title: 'one transaction of 100,000 rows',
    unit: 'rows/s',
    journalMode: 'WAL',
    synchronous: 'NORMAL',
    isBulk: true,
    ofBareMin: 0.5,
  },
];

const WARM_UP_MS = 200;
const CATCH_UP_MS = 60_000;
const FOLLOWER_READS_PER_SECOND = 500;

/** Loads of writes, each run in all places in turn, round by round, so that noise falls on all of them. */
export const writeMeasurements: readonly Measurement[] = loads.map(write => ({
  name: write.name,
  run: (rig, sizes) => measure(rig, sizes, write),
}));

async function measure(rig: Rig, sizes: Sizes, write: WriteLoad): Promise<Row[]> {
  const places = await rig.places();
  const file = `${write.name}.db`;
  const jobIn = (place: Place, durationMs: number): InsertJob => ({
    kind: 'insert',
    path: join(place.directory, file),
    journalMode: write.journalMode,
    synchronous: write.synchronous,
    durationMs,
  });
  const settle = async () => {
    if (rig.isAlone) return;
    const {primary, follower} = await rig.cluster();
    await follower.catchUp(primary, file, CATCH_UP_MS);
  };
  for (const place of places) await load(jobIn(place, WARM_UP_MS));
  await settle();
  const reader = await startReader(rig, file);
  const columns = await inRounds(places, sizes.roundCount, async place => {
    const job: Job = write.isBulk
      ? {kind: 'bulk', path: join(place.directory, file), rowCount: sizes.bulkRowCount}
      : jobIn(place, sizes.roundMs);
    const {perSecond} = await load<RateResult>(job);
    await settle();
    return perSecond;
  });
  await reader?.stop();
  return [{title: write.title, unit: write.unit, columns, checks: checksOf(columns, write)}];
}

async function startReader(rig: Rig, file: string): Promise<LoadProcess<null> | undefined> {
  if (rig.isAlone) return undefined;
  const {follower} = await rig.cluster();
  return await new LoadProcess<null>({
    kind: 'read-on',
    path: follower.path(file),
    perSecond: FOLLOWER_READS_PER_SECOND,
  }).ready();
}

/** Runs `measureOne` in every place in each round, starting with another place each time. Returns the medians. */
export async function inRounds(
  places: readonly Place[],
  roundCount: number,
  measureOne: (place: Place) => Promise<number>,
): Promise<Partial<Record<Column, number>>> {
  const values = new Map<Column, number[]>(places.map(({column}) => [column, []]));
  for (let round = 0; round < roundCount; round++) {
    for (let i = 0; i < places.length; i++) {
      const place = places[(i + round) % places.length];
      values.get(place.column)?.push(await measureOne(place));
    }
  }
  return Object.fromEntries([...values].map(([column, list]) => [column, median(list)]));
}

function checksOf(columns: Row['columns'], write: WriteLoad): Check[] {
  const reached = columns.cluster ?? columns.alone ?? Number.NaN;
  const checks = [atLeast('of bare', reached / (columns.bare ?? Number.NaN), write.ofBareMin)];
  if (write.ofPeerMin !== undefined && columns.peer !== undefined)
    checks.push(atLeast('of peer', reached / columns.peer, write.ofPeerMin));
  return checks;
}
