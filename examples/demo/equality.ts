import type {DemoNode} from './node.ts';
import {DemoError, waitFor} from './wait.ts';

/** What `cities/digest.ts` prints. */
export interface Digest {
  readonly integrity: string;
  readonly isConsistent: boolean;
  readonly counts: Readonly<Record<string, number>>;
  readonly hash: string;
}

export interface NodeDigest {
  readonly node: DemoNode;
  readonly digest: Digest;
}

/** Waits until every one of `nodes` is at the position of the first, and returns that. */
export async function waitForEqualPositions(
  nodes: readonly DemoNode[],
  database: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<string> {
  const names = nodes.map(node => node.name).join(', ');
  return await waitFor({what: `bring ${names} to one position`, timeoutMs, signal}, async () => {
    const positions = await Promise.all(nodes.map(node => node.position(database, signal)));
    return positions.every(position => position === positions[0]) ? positions[0] : undefined;
  });
}

/** Throws `DEMO_UNEQUAL` with all that is wrong. `visitCount`: visits that the programs know to be committed. */
export function checkDigests(digests: readonly NodeDigest[], visitCount: number): void {
  const expected = digests[0]?.digest;
  const findings = digests.flatMap(({node, digest}) => [
    ...(digest.integrity === 'ok' ? [] : [`${node.name}: PRAGMA integrity_check says ${digest.integrity}`]),
    ...(digest.isConsistent ? [] : [`${node.name}: the visits are not counted alike in the three tables`]),
    ...(digest.counts.visit === visitCount
      ? []
      : [`${node.name}: not the ${visitCount} visits that were committed`]),
    ...(digest.hash === expected?.hash ? [] : [`${node.name}: other rows than the primary's`]),
  ]);
  if (findings.length === 0) return;
  const facts = digests.map(({node, digest}) => `${node.name}: ${JSON.stringify(digest)}`);
  throw new DemoError('DEMO_UNEQUAL', `Cannot call the nodes equal: ${[...findings, ...facts].join('\n')}`);
}
