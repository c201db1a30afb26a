import {readdirSync} from 'node:fs';
import {formatTxid, type Position, type Txid} from '../ltx/position.ts';
import {LogError} from './error.ts';
import {
  BASE_NAME,
  EMPTY_BASE,
  type LogBase,
  type LogIntent,
  NO_INTENT,
  readLogBase,
  writeLogBase,
} from './log-base.ts';
import {carryOut} from './log-cut.ts';
import type {LogEntry} from './log-entry.ts';
import {type LogFolder, parseSegmentName, Segment} from './segment.ts';
import {type RecordCodec, type ScanStart, scanRecords} from './segment-scan.ts';
import {MARK_NAME, SyncedMark} from './synced-mark.ts';

/** A log as it was found, made consistent. */
export interface RecoveredLog {
  readonly base: LogBase;
  readonly segments: Segment[];
  readonly mark: SyncedMark;
  /** Every record up to here is known to be durable. */
  readonly syncedTxid: Txid;
  /** Bytes that were no whole record, or came after such, and were cut off. */
  readonly cutBytes: number;
}

/**
 * Reads a log's folder, which may be empty: completes what was interrupted, finds the end of each segment and cuts off a
 * torn tail. Reads whole records only where the indexes don't know them and, with `verifyTail`, after the last one that is known
 * to be durable. Throws `LOG_FOREIGN`, `LOG_CORRUPT`.
 */
export function recoverLog(folder: LogFolder, codec: RecordCodec, verifyTail: boolean): RecoveredLog {
  const names = listFolder(folder);
  const {base, intent} = readOrMakeBase(folder, names);
  const mark = new SyncedMark(folder.disk, folder.pool, folder.directory);
  for (const index of names.orphans) index.unlink();
  const found = carryOut(folder, names.segments, intent);
  if (intent.kind !== 'none') writeLogBase(folder.disk, folder.directory, base, NO_INTENT);
  const marked = mark.read() ?? (0n as Txid);
  const syncedTxid = marked > base.position.txid ? marked : base.position.txid;
  const segments = dropStale(found, base.position.txid);
  const chain = loadChain(segments, base.position, {syncedTxid, verifyTail, codec});
  if (chain.position.txid < syncedTxid) {
    throw new LogError(
      'LOG_CORRUPT',
      `Cannot open log: it ends at transaction ${chain.position.txid}, and ${syncedTxid} was durable`,
      {position: chain.position, syncedTxid},
    );
  }
  return {base, segments: chain.segments, mark, syncedTxid, cutBytes: chain.cutBytes};
}

interface FolderListing {
  readonly segments: readonly Segment[];
  /** Indexes whose segment is gone. */
  readonly orphans: readonly Segment[];
  readonly hasBase: boolean;
}

/** Finds the files, in order of their transactions. Throws `LOG_FOREIGN`. */
function listFolder(folder: LogFolder): FolderListing {
  const segments = new Map<Txid, Segment>();
  const indexes = new Map<Txid, Segment>();
  let hasBase = false;
  for (const name of readdirSync(folder.directory).sort()) {
    if (name === BASE_NAME) hasBase = true;
    if (name === BASE_NAME || name === MARK_NAME || name === `${BASE_NAME}.tmp`) continue;
    const parsed = parseSegmentName(name);
    if (parsed === undefined) {
      throw new LogError('LOG_FOREIGN', `Cannot open log: "${name}" is not part of it, move it away`, {
        directory: folder.directory,
        name,
      });
    }
    const of = parsed.kind === 'segment' ? segments : indexes;
    of.set(parsed.firstTxid, new Segment(folder, parsed.firstTxid));
  }
  for (const firstTxid of segments.keys()) indexes.delete(firstTxid);
  return {segments: [...segments.values()], orphans: [...indexes.values()], hasBase};
}

function readOrMakeBase(
  folder: LogFolder,
  names: FolderListing,
): {readonly base: LogBase; readonly intent: LogIntent} {
  const read = names.hasBase ? readLogBase(folder.disk, folder.directory) : undefined;
  if (read !== undefined) return read;
  const [first] = names.segments;
  if (first !== undefined) {
    throw new LogError('LOG_CORRUPT', `Cannot open log: there is "${first.fileName}" but no base file`, {
      segment: first.fileName,
    });
  }
  writeLogBase(folder.disk, folder.directory, EMPTY_BASE, NO_INTENT);
  return {base: EMPTY_BASE, intent: NO_INTENT};
}

/** Completes a retention that had dropped records from the base on but not yet from the folder. */
function dropStale(segments: readonly Segment[], baseTxid: Txid): readonly Segment[] {
  const isStale = (index: number) =>
    index + 1 < segments.length && segments[index + 1].firstTxid <= baseTxid + 1n;
  let count = 0;
  while (isStale(count)) segments[count++].unlink();
  return segments.slice(count);
}

interface LoadRules {
  readonly syncedTxid: Txid;
  readonly verifyTail: boolean;
  readonly codec: RecordCodec;
}

/** Loads one segment after the other until one is torn; what comes after it is dropped. */
function loadChain(
  found: readonly Segment[],
  start: Position,
  rules: LoadRules,
): {readonly segments: Segment[]; readonly position: Position; readonly cutBytes: number} {
  const segments: Segment[] = [];
  let position = start;
  let cutBytes = 0;
  for (const [index, segment] of found.entries()) {
    const torn = nextOrTorn(segment, position, rules) ?? loadSegment(segment, position, rules);
    if (segment.last !== undefined) {
      segments.push(segment);
      position = {txid: segment.last.maxTxid, checksum: segment.last.postApplyChecksum};
    }
    if (torn === undefined && segment.last !== undefined) continue;
    if (position.txid < rules.syncedTxid) throw corruptSegment(segment, position, torn);
    cutBytes += dropTail(found.slice(index), segment.last === undefined ? 0 : 1);
    break;
  }
  return {segments, position, cutBytes};
}

function corruptSegment(segment: Segment, position: Position, cause: Error | undefined): LogError {
  return new LogError(
    'LOG_CORRUPT',
    `Cannot open log: "${segment.fileName}" is damaged after transaction ${position.txid}`,
    {segment: segment.fileName, position},
    {cause},
  );
}

/** A segment that does not begin where the one before it ended is as bad as a torn record. */
function nextOrTorn(segment: Segment, position: Position, {verifyTail}: LoadRules): Error | undefined {
  if (segment.firstTxid === position.txid + 1n) return undefined;
  const gap = new LogError(
    'LOG_GAP',
    `Cannot open log: "${segment.fileName}" does not follow on transaction ${formatTxid(position.txid)}`,
    {segment: segment.fileName, position},
  );
  if (verifyTail && segment.firstTxid > position.txid) return gap;
  throw corruptSegment(segment, position, gap);
}

/** Finds the segment's records. Returns why the last one is not the end of the file, if so; changes only the index. */
function loadSegment(segment: Segment, position: Position, rules: LoadRules): Error | undefined {
  const fileSize = segment.fileSize();
  const trusted = lastTrusted(segment, position, fileSize, rules);
  const start: ScanStart =
    trusted === undefined
      ? {slot: 0, offset: 0, position}
      : {
          slot: trusted.slot + 1,
          offset: trusted.entry.offset + trusted.entry.size,
          position: {txid: trusted.entry.maxTxid, checksum: trusted.entry.postApplyChecksum},
        };
  const scan = scanRecords(segment, start, fileSize, rules.codec);
  segment.count = start.slot + scan.count;
  segment.last = scan.last ?? trusted?.entry;
  segment.size = segment.last === undefined ? 0 : segment.last.offset + segment.last.size;
  return scan.torn;
}

/** The last entry of the index that needs no look at its record, if there is one. */
function lastTrusted(
  segment: Segment,
  position: Position,
  fileSize: number,
  {syncedTxid, verifyTail}: LoadRules,
): {readonly slot: number; readonly entry: LogEntry} | undefined {
  const first = segment.tryEntry(0);
  if (first === undefined || first.offset !== 0 || first.minTxid !== position.txid + 1n) return undefined;
  if (first.preApplyChecksum !== position.checksum) return undefined;
  for (let slot = segment.indexCount() - 1; slot >= 0; slot--) {
    const entry = segment.tryEntry(slot);
    if (entry === undefined || entry.offset + entry.size > fileSize) continue;
    if (!verifyTail || entry.maxTxid <= syncedTxid) return {slot, entry};
  }
  return undefined;
}

/** Cuts the first of `segments` after its whole records, or removes it when `keptCount` is 0, and removes the others. */
function dropTail(segments: readonly Segment[], keptCount: 0 | 1): number {
  let bytes = 0;
  for (const segment of segments.slice(keptCount).reverse()) {
    bytes += segment.fileSize();
    segment.unlink();
  }
  if (keptCount === 0) return bytes;
  const [first] = segments;
  bytes += first.fileSize() - first.size;
  first.truncate(first.size);
  first.truncateIndex(first.count);
  return bytes;
}
