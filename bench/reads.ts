import {join} from 'node:path';
import type {JournalMode, RateResult, WriterResult} from './jobs.ts';
import {LoadProcess, load} from './load-process.ts';
import {atLeast, type Measurement, median, type Row} from './measurement.ts';
import type {Sizes} from './options.ts';
import type {Place, Rig} from './rig.ts';
import {inRounds} from './writes.ts';

const ROW_BYTES = 100;
const CATCH_UP_MS = 120_000;
const APPLIED_PER_SECOND = 500;

/** Point reads of a warm database, in random order: on the primary, on the follower, on the follower while it applies. */
export const readMeasurements: readonly Measurement[] = [
  {name: 'reads-wal', run: (rig, sizes) => measure(rig, sizes, 'WAL')},
  {name: 'reads-delete', run: (rig, sizes) => measure(rig, sizes, 'DELETE')},
];

async function measure(rig: Rig, sizes: Sizes, journalMode: JournalMode): Promise<Row[]> {
  const places = await rig.places();
  const file = `reads-${journalMode.toLowerCase()}.db`;
  for (const place of places) {
    await load({
      kind: 'fill',
      path: join(place.directory, file),
      rowCount: sizes.readRowCount,
      rowBytes: ROW_BYTES,
      journalMode,
    });
  }
  if (!rig.isAlone) {
    const {primary, follower} = await rig.cluster();
    await follower.catchUp(primary, file, CATCH_UP_MS);
  }
  const readIn = async (directory: string) => {
    const job = {
      kind: 'reads',
      path: join(directory, file),
      rowCount: sizes.readRowCount,
      durationMs: sizes.roundMs,
    } as const;
    return (await load<RateResult>(job)).perSecond;
  };
  const follower: {readonly quiet: number[]; readonly applying: number[]; readonly applied: number[]} = {
    quiet: [],
    applying: [],
    applied: [],
  };
  const columns = await inRounds(places, sizes.roundCount, async (place: Place) => {
    const perSecond = await readIn(place.directory);
    if (place.column !== 'cluster') return perSecond;
    const nodes = await rig.cluster();
    follower.quiet.push(await readIn(nodes.follower.mount));
    if (journalMode === 'DELETE') return perSecond; // The next reads would be in WAL mode: the writer turns it on.
    const writer = await new LoadProcess<WriterResult>({
      kind: 'write-on',
      path: nodes.primary.path(file),
      perSecond: APPLIED_PER_SECOND,
    }).ready();
    follower.applying.push(await readIn(nodes.follower.mount));
    const {commitCount, elapsedMs} = await writer.stop();
    follower.applied.push((commitCount / elapsedMs) * 1000);
    await nodes.follower.catchUp(nodes.primary, file, CATCH_UP_MS);
    return perSecond;
  });
  return rowsOf(journalMode, columns, follower);
}

function rowsOf(
  journalMode: JournalMode,
  columns: Row['columns'],
  follower: {
    readonly quiet: readonly number[];
    readonly applying: readonly number[];
    readonly applied: readonly number[];
  },
): Row[] {
  const bare = columns.bare ?? Number.NaN;
  const onPrimary = columns.cluster ?? columns.alone ?? Number.NaN;
  const min = journalMode === 'WAL' ? 0.95 : 0.85;
  const title = `point reads, ${journalMode}`;
  const rows: Row[] = [
    {
      title: `${title}, on the primary`,
      unit: 'reads/s',
      columns,
      checks: [atLeast('of bare', onPrimary / bare, min)],
    },
  ];
  const add = (where: string, values: readonly number[], bound: number, note?: string) => {
    if (values.length === 0) return;
    const cluster = median(values);
    rows.push({
      title: `${title}, ${where}`,
      unit: 'reads/s',
      columns: {bare, cluster},
      checks: [atLeast('of bare', cluster / bare, bound)],
      note,
    });
  };
  add('on a follower', follower.quiet, min);
  add(
    'on a follower that applies',
    follower.applying,
    0.8,
    `${Math.round(median(follower.applied))} tx/s applied; bare: nobody writes`,
  );
  return rows;
}
