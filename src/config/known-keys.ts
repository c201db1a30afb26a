import {optionList} from './options.ts';

/**
 * Keys of LiteFS that this version knows and does not have, sections included. A file that sets one asks for
 * something it would not get, so it is refused, with more to say than "unknown".
 */
export const unsupportedKeys: readonly string[] = [
  'backup',
  'exec',
  'fuse.debug',
  'http.snapshot-timeout',
  'lease.consul',
  'lease.databases',
  'lease.demote-delay',
  'lease.promote',
  'proxy',
  'strict-verify',
  'tracing',
];

/** The unsupported key or section that `key` is or lies in. */
export function findUnsupported(key: string): string | undefined {
  return unsupportedKeys.find(unsupported => key === unsupported || key.startsWith(`${unsupported}.`));
}

/** Whether options lie below `key`. */
export function isSection(key: string): boolean {
  return optionList.some(([, option]) => option.key.startsWith(`${key}.`));
}

/** The documented key that `key` was most likely meant to be; none if nothing is close. */
export function suggestKey(key: string): string | undefined {
  const distanceMax = Math.max(1, Math.floor(key.length / 3));
  let nearest: {key: string; distance: number} | undefined;
  for (const [, option] of optionList) {
    if (option.hidden) continue;
    const lastName = option.key.slice(option.key.lastIndexOf('.') + 1);
    // A key that only lost its section is as good as spelled right.
    const distance = Math.min(editDistance(key, option.key), editDistance(key, lastName) + 1);
    if (distance <= distanceMax && distance < (nearest?.distance ?? Number.POSITIVE_INFINITY))
      nearest = {key: option.key, distance};
  }
  return nearest?.key;
}

/** Levenshtein's distance: the fewest insertions, deletions and replacements of one character. */
function editDistance(a: string, b: string): number {
  let row = Array.from({length: b.length + 1}, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}
