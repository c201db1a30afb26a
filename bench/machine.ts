import {readFileSync} from 'node:fs';
import {cpus, loadavg, release} from 'node:os';

/** What a number of this table depends on besides the code. */
export interface Machine {
  readonly date: string;
  readonly cpu: string;
  readonly cpuCount: number;
  readonly kernel: string;
  readonly node: string;
  /** Device and type of the file system that was measured. */
  readonly disk: string;
  /** Load average of the last minute, before the first measurement. */
  readonly loadBefore: number;
}

export function describeMachine(directory: string): Machine {
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cpuCount: cpus().length,
    kernel: release(),
    node: process.versions.node,
    disk: diskOf(directory),
    loadBefore: loadavg()[0] ?? Number.NaN,
  };
}

/** The mount with the longest path that `directory` is in. */
function diskOf(directory: string): string {
  let [found, foundSize] = ['unknown', 0];
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [source = '', path = '', type = ''] = line.split(' ');
    const isAbove = path === '/' || directory === path || directory.startsWith(`${path}/`);
    if (isAbove && path.length >= foundSize) [found, foundSize] = [`${type} on ${source}`, path.length];
  }
  return found;
}
