import {LogError} from '../log/error.ts';
import {
  BASE_NAME,
  decodeLogBase,
  EMPTY_BASE,
  type LogBase,
  type LogIntent,
  NO_INTENT,
} from '../log/log-base.ts';
import type {LogEntry} from '../log/log-entry.ts';
import {parseSegmentName} from '../log/segment.ts';
import {decodeSyncedMark, MARK_NAME} from '../log/synced-mark.ts';
import {formatTxid, type Position, type Txid} from '../ltx/position.ts';
import {type Finding, guarded, note, noteIf, tried, violation} from './finding.ts';
import type {InputFile, InputFolder} from './input-folder.ts';
import {isClosed, type LeftBehind} from './left-behind.ts';
import {type ChainState, checkSegment, type LogVisitor, type RecordTools} from './segment-check.ts';

export interface LogCheckOptions {
  readonly folder: InputFolder;
  /** The log's folder. */
  readonly path: string;
  readonly left: LeftBehind;
  readonly tools: RecordTools;
  readonly visitor: LogVisitor & {
    /** What stands before the first record; undefined where that is not known. Called first. */
    begin(base: LogBase | undefined): void;
  };
}

/** Where a log ends, as far as it can be read. */
export interface LogEnd {
  readonly position: Position | undefined;
  readonly term: bigint;
  readonly last: LogEntry | undefined;
  /** Records are damaged or missing. */
  readonly isBroken: boolean;
}

interface SegmentPlace {
  readonly firstTxid: Txid;
  readonly size: number | undefined;
}

/** Checks a log's folder: base, mark, segments and indexes, every byte of every record. Changes nothing. */
export function* checkLog(options: LogCheckOptions): Generator<Finding, LogEnd> {
  const {folder, path, left, visitor} = options;
  const names = folder.list(path);
  if (names === undefined) {
    yield noteIf(!isClosed(left), 'FILE_MISSING', path, 'The log is missing');
    visitor.begin(EMPTY_BASE);
    return {position: EMPTY_BASE.position, term: 0n, last: undefined, isBroken: isClosed(left)};
  }
  const {base, intent} = yield* readBase(options, names);
  const syncedTxid = yield* readMark(options);
  const segments = yield* listSegments(options, names, base, intent);
  visitor.begin(base);
  const state: ChainState = {
    position: base?.position,
    term: base?.term ?? 0n,
    last: undefined,
    isBroken: base === undefined,
    isTorn: false,
  };
  for (const [index, place] of segments.entries()) {
    if (state.isTorn) break;
    yield* checkPlace(options, {place, nextTxid: segments[index + 1]?.firstTxid, syncedTxid}, state);
  }
  const {position, term, last, isBroken} = state;
  if (position !== undefined && position.txid < syncedTxid) {
    yield violation(
      'LOG_SHORT',
      path,
      `Log ends at transaction ${position.txid}, and ${syncedTxid} was durable`,
      {position, syncedTxid},
    );
    return {position, term, last, isBroken: true};
  }
  return {position, term, last, isBroken};
}

function* checkPlace(
  {folder, path, left, tools, visitor}: LogCheckOptions,
  {place, nextTxid, syncedTxid}: {place: SegmentPlace; nextTxid: Txid | undefined; syncedTxid: Txid},
  state: ChainState,
): Generator<Finding> {
  const segmentPath = `${path}/${formatTxid(place.firstTxid)}.ltxs`;
  const indexPath = `${path}/${formatTxid(place.firstTxid)}.ltxi`;
  const opened: InputFile[] = [];
  const open = (name: string) => {
    const file = folder.open(name);
    if (file !== undefined) opened.push(file);
    return file;
  };
  const isRead = yield* guarded(segmentPath, function* () {
    const source = open(segmentPath);
    if (source === undefined) return false;
    const index = yield* tried(indexPath, () => open(indexPath));
    const size = Math.min(source.size, place.size ?? source.size);
    const files = {path: segmentPath, indexPath, firstTxid: place.firstTxid, source, index, size, nextTxid};
    yield* checkSegment(files, state, {tools, visitor, left, syncedTxid});
    return true;
  });
  for (const file of opened) file.close();
  if (isRead === true) return;
  state.isBroken = true;
  state.position = undefined;
  visitor.lost(nextTxid === undefined ? undefined : ((nextTxid - 1n) as Txid));
}

function* readBase(
  {folder, path, left}: LogCheckOptions,
  names: readonly string[],
): Generator<Finding, {readonly base: LogBase | undefined; readonly intent: LogIntent}> {
  const basePath = `${path}/${BASE_NAME}`;
  const hasRecords = names.some(name => parseSegmentName(name)?.kind === 'segment');
  const nothing = {base: hasRecords ? undefined : EMPTY_BASE, intent: NO_INTENT};
  const bytes = yield* tried(basePath, () => folder.readAll(basePath));
  if (bytes === undefined) {
    if (!names.includes(BASE_NAME)) {
      yield noteIf(!isClosed(left) && !hasRecords, 'FILE_MISSING', basePath, 'Base of the log is missing');
    }
    return nothing;
  }
  try {
    const found = decodeLogBase(bytes);
    if (found.intent.kind !== 'none') {
      const message = `A ${found.intent.kind} of the log was interrupted: the next start completes it`;
      yield note('LOG_UNFINISHED', basePath, message, {intent: found.intent});
    }
    return found;
  } catch (error) {
    if (!(error instanceof LogError)) throw error;
    yield violation('LOG_BASE_CORRUPT', basePath, error.message, error.detail);
    return {base: undefined, intent: NO_INTENT};
  }
}

function* readMark({folder, path, left}: LogCheckOptions): Generator<Finding, Txid> {
  const markPath = `${path}/${MARK_NAME}`;
  const none = 0n as Txid;
  const bytes = yield* tried(markPath, () => folder.readAll(markPath));
  if (bytes === undefined || bytes.length === 0) return none;
  const mark = decodeSyncedMark(bytes);
  if (mark !== undefined) return mark;
  yield noteIf(left === 'rebooted', 'LOG_MARK_CORRUPT', markPath, 'Mark of what is durable is damaged');
  return none;
}

function* listSegments(
  {path}: LogCheckOptions,
  names: readonly string[],
  base: LogBase | undefined,
  intent: LogIntent,
): Generator<Finding, SegmentPlace[]> {
  const segments: Txid[] = [];
  const indexes: Txid[] = [];
  for (const name of names) {
    if (name === BASE_NAME || name === MARK_NAME || name === `${BASE_NAME}.tmp`) continue;
    const parsed = parseSegmentName(name);
    if (parsed === undefined) {
      yield violation(
        'FILE_UNKNOWN',
        `${path}/${name}`,
        'The file is not part of the log, which does not open because of it',
      );
    } else (parsed.kind === 'segment' ? segments : indexes).push(parsed.firstTxid);
  }
  const known = new Set(segments);
  for (const firstTxid of indexes) {
    if (known.has(firstTxid)) continue;
    yield note(
      'LOG_UNFINISHED',
      `${path}/${formatTxid(firstTxid)}.ltxi`,
      'Index without a segment: the next start removes it',
    );
  }
  const kept =
    intent.kind === 'reset' ? [] : segments.filter(txid => intent.kind !== 'cut' || txid <= intent.after);
  const baseTxid = base?.position.txid ?? 0n;
  const isStale = (index: number) => index + 1 < kept.length && kept[index + 1] <= baseTxid + 1n;
  let staleCount = 0;
  while (isStale(staleCount)) staleCount++;
  if (staleCount > 0)
    yield note(
      'LOG_UNFINISHED',
      path,
      `${staleCount} segments lie before the base: the next start removes them`,
    );
  return kept.slice(staleCount).map((firstTxid, index, all) => ({
    firstTxid,
    size: intent.kind === 'cut' && index === all.length - 1 ? intent.segmentSize : undefined,
  }));
}
