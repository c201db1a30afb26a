import {readFileSync, writeFileSync} from 'node:fs';
import {killMeasurement} from './kills.ts';
import {largeMeasurements} from './large.ts';
import {latencyMeasurement} from './latency.ts';
import {killLoads} from './load-process.ts';
import {describeMachine} from './machine.ts';
import {isReached, type Measurement, type Row} from './measurement.ts';
import {type Options, readOptions, USAGE} from './options.ts';
import {readMeasurements} from './reads.ts';
import {Rig} from './rig.ts';
import {type Report, renderJson, renderText, withTable} from './table.ts';
import {writeMeasurements} from './writes.ts';

const EXIT_USAGE = 2;
const measurements: readonly Measurement[] = [
  ...writeMeasurements,
  ...readMeasurements,
  latencyMeasurement,
  killMeasurement,
  ...largeMeasurements,
];

async function run(options: Options, rig: Rig): Promise<Report> {
  const machine = describeMachine(options.directory);
  const rows: Row[] = [];
  const failures: {name: string; text: string}[] = [];
  for (const {name, run: measure} of measurements) {
    if (options.only.length > 0 && !options.only.includes(name)) continue;
    const start = performance.now();
    try {
      rows.push(...(await measure(rig, options.sizes)));
      rig.tell(`${name}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
    } catch (error) {
      // The others can still be measured; the report and the exit code tell of it.
      killLoads();
      rig.tell(`${name}: failed`);
      failures.push({name, text: error instanceof Error ? error.message : String(error)});
    }
  }
  return {machine, rows, failures, peerMissing: rig.peerMissing, isQuick: options.isQuick};
}

/** Exit code: 0 when every bound is reached, 1 when not, 2 for a wrong command line. */
async function main(argv: readonly string[]): Promise<number> {
  const names = measurements.map(({name}) => name);
  const usage = USAGE.replace('NAMES', names.join(', '));
  let options: Options | 'help';
  try {
    options = readOptions(argv);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n\n${usage}`);
    return EXIT_USAGE;
  }
  if (options === 'help') {
    process.stdout.write(usage);
    return 0;
  }
  const unknown = options.only.filter(name => !names.includes(name));
  if (unknown.length > 0) {
    process.stderr.write(`Cannot run ${unknown.join(', ')}: there is no such measurement\n\n${usage}`);
    return EXIT_USAGE;
  }
  return await runAndPrint(options);
}

async function runAndPrint(options: Options): Promise<number> {
  const rig = new Rig(options);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      rig.kill();
      process.exit(1);
    });
  }
  const report = await run(options, rig);
  process.stdout.write(options.isJson ? renderJson(report) : renderText(report));
  await rig.close();
  if (options.updatesReadme) writeFileSync('README.md', withTable(readFileSync('README.md', 'utf8'), report));
  return report.failures.length === 0 && report.rows.every(row => row.checks.every(isReached)) ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
