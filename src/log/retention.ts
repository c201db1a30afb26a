import type {Txid} from '../ltx/position.ts';
import type {Segment} from './segment.ts';

/** What retention keeps. */
export interface RetentionRules {
  /** The first transaction that somebody still needs. */
  readonly keepFrom: Txid;
  /** A segment is dropped when its last record is older than this, in milliseconds. */
  readonly olderThanMs: number;
  /** Now, in milliseconds since the Unix epoch. */
  readonly nowMs: number;
  /** Old segments are dropped, whatever their age, while the log is larger than this. */
  readonly bytesMax?: number;
}

/** How many of the first segments may go. Never the one that holds the log's last record. */
export function countExpired(segments: readonly Segment[], rules: RetentionRules): number {
  const lastFilled = segments.findLastIndex(segment => segment.count > 0);
  let bytes = segments.reduce((sum, segment) => sum + segment.size, 0);
  let count = 0;
  while (count < lastFilled) {
    const {last, size} = segments[count];
    if (last === undefined || last.maxTxid >= rules.keepFrom) break;
    const isOld = last.timestampMs < rules.nowMs - rules.olderThanMs;
    if (!isOld && bytes <= (rules.bytesMax ?? Number.POSITIVE_INFINITY)) break;
    bytes -= size;
    count += 1;
  }
  return count;
}
