import {tmpdir} from 'node:os';
import {parseArgs} from 'node:util';

/** How much work each measurement does. Durations in milliseconds. */
export interface Sizes {
  /** Rounds of each throughput measurement; the table shows their median. */
  readonly roundCount: number;
  readonly roundMs: number;
  /** Rows of the table that point reads look into: larger than SQLite's own cache of 2 MiB. */
  readonly readRowCount: number;
  readonly bulkRowCount: number;
  readonly latencyMs: number;
  readonly largeBytes: number;
  readonly smallCount: number;
  readonly killCount: number;
}

const FULL: Sizes = {
  roundCount: 5,
  roundMs: 1000,
  readRowCount: 100_000,
  bulkRowCount: 100_000,
  latencyMs: 15_000,
  largeBytes: 1024 ** 3,
  smallCount: 10_000,
  killCount: 50,
};

const QUICK: Sizes = {
  roundCount: 2,
  roundMs: 300,
  readRowCount: 50_000,
  bulkRowCount: 100_000,
  latencyMs: 2000,
  largeBytes: 64 * 1024 ** 2,
  smallCount: 200,
  killCount: 3,
};

export interface Options {
  readonly sizes: Sizes;
  readonly isQuick: boolean;
  /** Leaves out what needs a follower. */
  readonly isAlone: boolean;
  readonly isJson: boolean;
  readonly updatesReadme: boolean;
  /** Names of the measurements to run; empty: all. */
  readonly only: readonly string[];
  /** Where databases and mounts are made: the disk that is measured. */
  readonly directory: string;
  /** A folder with `node_modules/fuse-native`. */
  readonly peerDirectory: string;
}

export const USAGE = `npm run bench -- [--quick] [--only NAME]... [--json] [--readme] [--dir DIR] [--peer DIR]

  --quick      small sizes and few rounds, about a minute: to see that everything runs
  --only NAME  one measurement (may be given more than once): NAMES
  --rounds N   rounds of each throughput measurement
  --alone      without a follower: for work on what the primary does
  --json       print JSON instead of the table
  --readme     write the table into README.md, between its markers
  --dir DIR    where to work, on the disk to measure (default: the system's temporary directory)
  --peer DIR   a folder with node_modules/fuse-native, to measure its pass-through too (default: here)
`;

/** Reads the command line. Throws a TypeError of `parseArgs` for what it doesn't know. */
export function readOptions(argv: readonly string[]): Options | 'help' {
  const {values} = parseArgs({
    args: [...argv],
    options: {
      alone: {type: 'boolean', default: false},
      quick: {type: 'boolean', default: false},
      json: {type: 'boolean', default: false},
      readme: {type: 'boolean', default: false},
      help: {type: 'boolean', default: false},
      only: {type: 'string', multiple: true, default: []},
      rounds: {type: 'string'},
      dir: {type: 'string', default: tmpdir()},
      peer: {type: 'string', default: process.cwd()},
    },
  });
  if (values.help) return 'help';
  const sizes = values.quick ? QUICK : FULL;
  const roundCount = values.rounds === undefined ? sizes.roundCount : Number(values.rounds);
  if (!Number.isInteger(roundCount) || roundCount < 1)
    throw new TypeError('--rounds takes a whole number from 1');
  return {
    sizes: {...sizes, roundCount},
    isQuick: values.quick,
    isAlone: values.alone,
    isJson: values.json,
    updatesReadme: values.readme,
    only: values.only,
    directory: values.dir,
    peerDirectory: values.peer,
  };
}
