import {constants} from 'node:fs';
import {join} from 'node:path';
import {crc32} from 'node:zlib';
import type {Disk} from '../lib/disk.ts';
import {EMPTY_POSITION, isChecksum, type Position, type Txid} from '../ltx/position.ts';
import {LogError} from './error.ts';

/** What stands before the first record: nothing, a snapshot, or the last record that retention dropped. */
export interface LogBase {
  readonly position: Position;
  readonly term: bigint;
}

/**
 * A change of several files that must happen as a whole: noted before the first, completed at the next open. A cut
 * keeps `segmentSize` bytes of the segment that holds transaction `after`, and nothing of the segments after it.
 */
export type LogIntent =
  | {readonly kind: 'none'}
  | {readonly kind: 'reset'}
  | {readonly kind: 'cut'; readonly after: Txid; readonly segmentSize: number};

export const NO_INTENT: LogIntent = {kind: 'none'};

/** The base of a new database's log. */
export const EMPTY_BASE: LogBase = {position: EMPTY_POSITION, term: 0n};

export const BASE_NAME = 'base';

// Base file, big-endian:
//   0 magic "FRLGBAS1" | 8 intent u32: 0 none, 1 reset, 2 cut | 12 reserved u32 | 16 txid u64 | 24 checksum u64
//  32 term u64 | 40 cutAfter u64 | 48 cutSegmentSize u64 | 56 reserved u32 | 60 crc32 u32 of the 60 bytes before it
export const BASE_FILE_SIZE = 64;
const MAGIC = 0x4652_4c47_4241_5331n;
const INTENT_KINDS = ['none', 'reset', 'cut'] as const;

/** The bytes of the base file. */
export function encodeLogBase(base: LogBase, intent: LogIntent): Uint8Array {
  const bytes = new Uint8Array(BASE_FILE_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC);
  view.setUint32(8, INTENT_KINDS.indexOf(intent.kind));
  view.setBigUint64(16, base.position.txid);
  view.setBigUint64(24, base.position.checksum);
  view.setBigUint64(32, base.term);
  if (intent.kind === 'cut') {
    view.setBigUint64(40, intent.after);
    view.setBigUint64(48, BigInt(intent.segmentSize));
  }
  view.setUint32(60, crc32(bytes.subarray(0, 60)));
  return bytes;
}

/** Reads the base file's bytes. Throws `LOG_CORRUPT` when they are not what `encodeLogBase` makes. */
export function decodeLogBase(bytes: Uint8Array): {readonly base: LogBase; readonly intent: LogIntent} {
  if (bytes.length !== BASE_FILE_SIZE) {
    throw new LogError('LOG_CORRUPT', `Cannot read log base: ${bytes.length} bytes, not ${BASE_FILE_SIZE}`, {
      size: bytes.length,
    });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, BASE_FILE_SIZE);
  if (view.getBigUint64(0) !== MAGIC)
    throw new LogError('LOG_CORRUPT', 'Cannot read log base: unknown magic');
  if (view.getUint32(60) !== crc32(bytes.subarray(0, 60))) {
    throw new LogError('LOG_CORRUPT', 'Cannot read log base: checksum mismatch');
  }
  const kind = INTENT_KINDS[view.getUint32(8)];
  const checksum = view.getBigUint64(24);
  if (kind === undefined || !isChecksum(checksum)) {
    throw new LogError('LOG_CORRUPT', 'Cannot read log base: a field is out of range', {kind, checksum});
  }
  const base: LogBase = {
    position: {txid: view.getBigUint64(16) as Txid, checksum},
    term: view.getBigUint64(32),
  };
  if (kind !== 'cut') return {base, intent: {kind}};
  return {
    base,
    intent: {kind, after: view.getBigUint64(40) as Txid, segmentSize: Number(view.getBigUint64(48))},
  };
}

/** Reads the base file of the log in `directory`; `undefined` when there is none. Throws `LOG_CORRUPT`. */
export function readLogBase(disk: Disk, directory: string): ReturnType<typeof decodeLogBase> | undefined {
  let fd: number;
  try {
    fd = disk.open('log:base-open', join(directory, BASE_NAME), constants.O_RDONLY);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const bytes = new Uint8Array(BASE_FILE_SIZE + 1);
    return decodeLogBase(bytes.subarray(0, disk.read(fd, bytes, 0)));
  } finally {
    disk.close(fd);
  }
}

/** Replaces the base file, durably. */
export function writeLogBase(disk: Disk, directory: string, base: LogBase, intent: LogIntent): void {
  disk.writeFileAtomic('log:base', join(directory, BASE_NAME), encodeLogBase(base, intent));
}
