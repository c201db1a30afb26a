import {defineConfig} from 'vitest/config';
import {SummaryReporter} from './test/reporter.ts';

// These mount a directory, start daemons and measure nothing: after everything else, since each keeps both CPUs busy at times.
const mounting = ['test/{mount,capture,replication,keeper,verify}/**/*.test.ts'];
const timeouts = {testTimeout: 300_000, hookTimeout: 120_000};

export default defineConfig({
  test: {
    reporters: ['default', new SummaryReporter()],
    projects: [
      {
        test: {
          ...timeouts,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: mounting,
          pool: 'forks',
          maxWorkers: 2,
          sequence: {groupOrder: 0},
        },
      },
      {
        test: {
          ...timeouts,
          name: 'mount',
          include: mounting,
          pool: 'forks',
          maxWorkers: 2,
          sequence: {groupOrder: 1},
        },
      },
    ],
  },
});
