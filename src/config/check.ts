import {dirname, join, sep} from 'node:path';
import {assert} from '../lib/assert.ts';
import type {Finding} from './error.ts';
import type {Config} from './options.ts';

/** Follows symbolic links as `fs.realpathSync` does: throws a Node error with `code` where nothing is. */
export type Realpath = (path: string) => string;

/** Whatever is wrong between options that are each right by themselves. Directories must be absolute by now. */
export function checkConfig(config: Omit<Config, 'path'>, realpath: Realpath): Finding[] {
  const findings: Finding[] = [];
  const overlap = describeOverlap(
    resolveExisting(config.fuseDir, realpath),
    resolveExisting(config.dataDir, realpath),
  );
  if (overlap !== undefined) {
    findings.push({
      key: 'data.dir',
      value: config.dataDir,
      problem: `${overlap} fuse.dir ("${config.fuseDir}")`,
      remedy: 'name two directories apart from each other',
    });
  }
  if (!config.leaseCandidate && config.leaseAdvertiseUrl === undefined) {
    findings.push({
      key: 'lease.advertise-url',
      problem: 'missing, and a follower has to know its primary',
      remedy: 'write the URL of the primary',
    });
  }
  return findings;
}

function describeOverlap(mount: string, data: string): string | undefined {
  if (mount === data) return 'the same directory as';
  if (isInside(data, mount)) return 'inside';
  // The mount would hide what the data directory holds there from the daemon itself.
  if (isInside(mount, data)) return 'around';
  return undefined;
}

function isInside(path: string, directory: string): boolean {
  return path.startsWith(directory.endsWith(sep) ? directory : directory + sep);
}

/** `path` with the links in its longest existing part followed. The rest is yet to be created, so it holds none. */
function resolveExisting(path: string, realpath: Realpath): string {
  assert(path.startsWith(sep), 'directories are absolute before they are compared');
  const missing: string[] = [];
  for (let existing = path; ; existing = dirname(existing)) {
    try {
      return join(realpath(existing), ...missing);
    } catch {
      // Also where a dead mount or a lack of rights hides it: the parents are then what can be compared.
      if (existing === dirname(existing)) return path;
      missing.unshift(existing.slice(existing.lastIndexOf(sep) + 1));
    }
  }
}
