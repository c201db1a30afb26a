import type {LtxHeader} from '../ltx/header.ts';
import {formatPosition, type Position} from '../ltx/position.ts';
import {LogError} from './error.ts';

/** Throws `LOG_GAP` unless a record with this header is the next one after `position`. */
export function checkFollowsOn(header: LtxHeader, position: Position): void {
  const expected = header.minTxid === 1n ? 0n : position.checksum;
  if (header.minTxid === position.txid + 1n && header.preApplyChecksum === expected) return;
  throw new LogError(
    'LOG_GAP',
    `Cannot log transaction ${header.minTxid}: position is ${formatPosition(position)}`,
    {minTxid: header.minTxid, preApplyChecksum: header.preApplyChecksum, position},
  );
}
