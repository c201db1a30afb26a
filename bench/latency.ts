import {setTimeout as sleep} from 'node:timers/promises';
import type {WatchResult, WriterResult} from './jobs.ts';
import {LoadProcess} from './load-process.ts';
import {atMost, type Measurement, quantile, type Row} from './measurement.ts';
import type {Sizes} from './options.ts';
import type {Rig} from './rig.ts';

const FILE = 'latency.db';
const PER_SECOND = 200;
const SETTLE_MS = 500;
const CATCH_UP_MS = 30_000;

/** From the return of a commit on the primary until a reader on the follower finds the row. */
export const latencyMeasurement: Measurement = {name: 'latency', run: measure};

async function measure(rig: Rig, sizes: Sizes): Promise<Row[]> {
  if (rig.isAlone) return [];
  const {primary, follower} = await rig.cluster();
  const writer = await new LoadProcess<WriterResult>({
    kind: 'write-on',
    path: primary.path(FILE),
    perSecond: PER_SECOND,
  }).ready();
  await sleep(SETTLE_MS); // The reader needs the table.
  const watcher = await new LoadProcess<WatchResult>({kind: 'watch', path: follower.path(FILE)}).ready();
  await sleep(sizes.latencyMs);
  const written = await writer.stop();
  await follower.catchUp(primary, FILE, CATCH_UP_MS);
  const seen = await watcher.stop();
  const delays: number[] = [];
  for (const [i, seenAtMs] of seen.seenAtMs.entries()) {
    const committedAtMs = written.committedAtMs[seen.firstId + i - written.firstId];
    if (committedAtMs !== undefined) delays.push(Math.max(0, seenAtMs - committedAtMs));
  }
  const [p50, p99] = [quantile(delays, 0.5), quantile(delays, 0.99)];
  return [
    {
      title: `commit to visible on a follower, ${PER_SECOND} tx/s`,
      unit: 'ms',
      columns: {cluster: p50},
      checks: [atMost('p50', p50, 1, 'ms'), atMost('p99', p99, 5, 'ms')],
      note: `${delays.length} commits, the longest took ${quantile(delays, 1).toFixed(1)} ms; looked for every 0.1 ms`,
    },
  ];
}
