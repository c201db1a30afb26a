import type {LogIntent} from './log-base.ts';
import type {LogFolder, Segment} from './segment.ts';

/**
 * Carries out what an intent says, whatever part of it had happened before. `segments` are all of the log's, in
 * order; returns those that are left. Durable when it returns. The caller then takes the intent back.
 */
export function carryOut(
  folder: LogFolder,
  segments: readonly Segment[],
  intent: LogIntent,
): readonly Segment[] {
  if (intent.kind === 'none') return segments;
  const kept = intent.kind === 'reset' ? [] : segments.filter(segment => segment.firstTxid <= intent.after);
  for (const segment of segments.slice(kept.length).reverse()) segment.unlink();
  const last = kept.at(-1);
  if (intent.kind === 'cut' && last !== undefined && last.fileSize() > intent.segmentSize) {
    last.truncate(intent.segmentSize);
    last.sync();
  }
  folder.disk.syncDirectory('log:cut-sync-directory', folder.directory);
  return kept;
}
