import {describeOptions} from '../src/config/describe.ts';

const startMark = '<!-- options:start -->';
const endMark = '<!-- options:end -->';

/** `readme` with the table of options between its two marks replaced by the current one. */
export function insertOptions(readme: string): string {
  const start = readme.indexOf(startMark);
  const end = readme.indexOf(endMark);
  if (start < 0 || end < start)
    throw new Error(`Cannot insert the options: README.md lacks "${startMark}" before "${endMark}"`);
  return `${readme.slice(0, start + startMark.length)}\n${describeOptions().markdown}${readme.slice(end)}`;
}

/** The sample config file. */
export function sampleConfig(): string {
  return describeOptions().yaml;
}
