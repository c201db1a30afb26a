import {setTimeout as sleep} from 'node:timers/promises';
import {type CountResult, UNPACED, type WriterResult} from './jobs.ts';
import {LoadProcess, load} from './load-process.ts';
import {atMost, type Measurement, type Row} from './measurement.ts';
import type {Sizes} from './options.ts';
import type {Rig} from './rig.ts';

const FILE = 'kills.db';
// Long enough for the next spare daemon to be loaded while the writer and the daemon keep both CPUs busy.
const BETWEEN_MS = 1700;
const BETWEEN_MORE_MS = 600;

/** kill -9 of the daemon, again and again, while an app commits as fast as it can. */
export const killMeasurement: Measurement = {name: 'kills', run: measure};

async function measure(rig: Rig, sizes: Sizes): Promise<Row[]> {
  const node = await rig.startNode('killed');
  const path = node.path(FILE);
  const writer = await new LoadProcess<WriterResult>({kind: 'write-on', path, perSecond: UNPACED}).ready();
  let pidBefore = 0;
  for (let kills = 0; kills < sizes.killCount; ) {
    await sleep(BETWEEN_MS + (kills % 7) * (BETWEEN_MORE_MS / 7)); // Not in step with anything the daemon does.
    if (node.daemonPid === pidBefore) continue; // The next one has not begun to serve.
    pidBefore = node.daemonPid;
    node.killDaemon();
    kills++;
  }
  await sleep(BETWEEN_MS + BETWEEN_MORE_MS);
  const {commitCount, errors, pauseMaxMs, elapsedMs} = await writer.stop();
  for (const error of new Set(errors)) rig.tell(`  ${error}`);
  const {rowCount, integrity} = await load<CountResult>({kind: 'count', path});
  if (integrity !== 'ok' || rowCount < commitCount) {
    throw new Error(
      `Cannot accept the kills: ${commitCount} commits, ${rowCount} rows, integrity "${integrity}"`,
    );
  }
  await node.destroy();
  return [
    {
      title: `kill -9 of the daemon under full write load, ${sizes.killCount} times`,
      unit: 's',
      columns: {alone: pauseMaxMs / 1000},
      checks: [
        atMost('errors in the app', errors.length, 0),
        atMost('longest pause', pauseMaxMs / 1000, 1, 's'),
      ],
      note: `${commitCount} commits in ${(elapsedMs / 1000).toFixed(0)} s, none lost; a kill every two seconds`,
    },
  ];
}
