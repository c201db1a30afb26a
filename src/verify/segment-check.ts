import {LogError} from '../log/error.ts';
import {
  decodeIndexEntry,
  encodeIndexEntry,
  INDEX_ENTRY_SIZE,
  type LogEntry,
  makeLogEntry,
} from '../log/log-entry.ts';
import {checkFollowsOn} from '../log/log-order.ts';
import {isBadRecord, partSource} from '../log/segment-scan.ts';
import {PageHasher} from '../ltx/checksum.ts';
import type {Crc64, Crc64Factory} from '../ltx/crc64.ts';
import {LtxDecoder, measureLtx} from '../ltx/decoder.ts';
import {LtxError} from '../ltx/error.ts';
import {decodeLtxHeader, LTX_HEADER_SIZE, type LtxHeader} from '../ltx/header.ts';
import {type Checksum, formatPosition, type Position, type Txid} from '../ltx/position.ts';
import type {ByteSource} from '../ltx/record-reader.ts';
import {type Finding, note, noteIf, violation} from './finding.ts';
import type {InputFile} from './input-folder.ts';
import {isClosed, type LeftBehind} from './left-behind.ts';

/** Pages that a record sets, and their checksums. */
export interface RecordPages {
  readonly pgnos: readonly number[];
  readonly checksums: readonly Checksum[];
}

/** Who wants to know what the log holds, in order. */
export interface LogVisitor {
  /** Whether `record` is to be given the pages. */
  wantsPages(header: LtxHeader): boolean;
  /** A record that is whole. */
  record(entry: LogEntry, pages: RecordPages): void;
  /** Records up to `upTo` cannot be read; undefined: an unknown number of them, at the log's end. */
  lost(upTo: Txid | undefined): void;
}

/** What all checks of records take. */
export interface RecordTools {
  readonly hasher: PageHasher;
  readonly crc64: Crc64;
  readonly lockPgno: (pageSize: number) => number;
}

export function makeRecordTools(crc64: Crc64Factory, lockPgno: (pageSize: number) => number): RecordTools {
  return {hasher: new PageHasher(crc64), crc64: crc64.create(), lockPgno};
}

export interface SegmentFiles {
  readonly path: string;
  readonly firstTxid: Txid;
  readonly source: InputFile;
  /** Bytes of the file that count. */
  readonly size: number;
  readonly index: InputFile | undefined;
  readonly indexPath: string;
  /** First transaction of the next segment. */
  readonly nextTxid: Txid | undefined;
}

/** Where the chain of records stands; no position: damage lies before, and whatever comes next is accepted. */
export interface ChainState {
  position: Position | undefined;
  term: bigint;
  last: LogEntry | undefined;
  isBroken: boolean;
  /** What follows is cut off by the next start. */
  isTorn: boolean;
}

export interface SegmentContext {
  readonly tools: RecordTools;
  readonly visitor: LogVisitor;
  readonly left: LeftBehind;
  readonly syncedTxid: Txid;
}

/** Checks the records of one segment and its index, and moves `state` on. */
export function* checkSegment(
  files: SegmentFiles,
  state: ChainState,
  context: SegmentContext,
): Generator<Finding> {
  const {source, size, path} = files;
  const index = new IndexComparison(files);
  let offset = 0;
  let slot = 0;
  while (offset < size && !state.isTorn) {
    let next: {readonly entry: LogEntry; readonly pages: RecordPages};
    try {
      next = readRecord(partSource(source, 0, size), offset, files, context);
    } catch (error) {
      if (!isBadRecord(error)) throw error;
      const place = {error: error as Error, offset, path};
      if (isTornTail(error, state, files, context)) {
        yield* reportTorn(place, state, context.left);
        return yield* index.report(slot, context.left);
      }
      const known = index.entryAt(slot, offset);
      yield* reportCorrupt(place, state);
      context.visitor.lost(
        known?.maxTxid ?? (files.nextTxid === undefined ? undefined : ((files.nextTxid - 1n) as Txid)),
      );
      state.isBroken = true;
      state.position = known && {txid: known.maxTxid, checksum: known.postApplyChecksum};
      if (known === undefined) return yield* index.report(slot, context.left);
      offset += known.size;
      slot++;
      continue;
    }
    yield* checkOrder(next.entry, state, slot, files, context.visitor);
    index.compare(slot, next.entry);
    context.visitor.record(next.entry, next.pages);
    state.position = {txid: next.entry.maxTxid, checksum: next.entry.postApplyChecksum};
    state.last = next.entry;
    offset += next.entry.size;
    slot++;
  }
  yield* index.report(slot, context.left);
}

function readRecord(
  source: ByteSource,
  offset: number,
  {path}: SegmentFiles,
  {tools, visitor}: SegmentContext,
) {
  const head = new Uint8Array(LTX_HEADER_SIZE);
  const {pageSize} = decodeLtxHeader(head.subarray(0, source.read(offset, head)));
  const lockPgno = tools.lockPgno(pageSize);
  const {header, trailer, size} = measureLtx(source, offset, lockPgno);
  const postApplyChecksum = trailer.postApplyChecksum as Checksum;
  const entry = makeLogEntry(header, {segment: path, offset, size, ...trailer, postApplyChecksum});
  const decoder = new LtxDecoder({
    source: partSource(source, offset, size),
    crc64: tools.crc64,
    lockPgno,
    pageHasher: tools.hasher,
  });
  const pages = {pgnos: [] as number[], checksums: [] as Checksum[]};
  const isWanted = visitor.wantsPages(header);
  for (let page = decoder.nextPage(); page !== undefined; page = decoder.nextPage()) {
    if (!isWanted || page.checksum === undefined) continue;
    pages.pgnos.push(page.pgno);
    pages.checksums.push(page.checksum);
  }
  decoder.close();
  return {entry, pages};
}

/** Whether the next start cuts the record off without a word: it was being written, or was not durable. */
function isTornTail(
  error: unknown,
  state: ChainState,
  files: SegmentFiles,
  {left, syncedTxid}: SegmentContext,
): boolean {
  if (isClosed(left) || state.isBroken || state.position === undefined || state.position.txid < syncedTxid)
    return false;
  if (left === 'rebooted') return true;
  // With the machine up, what was written is there: a record can only lack its end, and nothing follows it.
  return files.nextTxid === undefined && error instanceof LtxError && error.code === 'LTX_TRUNCATED';
}

interface BadPlace {
  readonly error: Error;
  readonly offset: number;
  readonly path: string;
}

function* reportTorn(
  {error, offset, path}: BadPlace,
  state: ChainState,
  left: LeftBehind,
): Generator<Finding> {
  state.isTorn = true;
  const message = `Log ends in a record that is not whole, at byte ${offset}: the next start cuts it off`;
  yield note('LOG_TORN_TAIL', path, message, {offset, left, cause: error.message});
}

function* reportCorrupt({error, offset, path}: BadPlace, {position}: ChainState): Generator<Finding> {
  const after = position === undefined ? '' : ` after ${formatPosition(position)}`;
  const code = error instanceof LtxError || error instanceof LogError ? error.code : undefined;
  yield violation(
    'LOG_RECORD_CORRUPT',
    path,
    `Record at byte ${offset}${after} is damaged: ${error.message}`,
    {offset, cause: code},
  );
}

function* checkOrder(
  entry: LogEntry,
  state: ChainState,
  slot: number,
  files: SegmentFiles,
  visitor: LogVisitor,
): Generator<Finding> {
  const {minTxid, term, offset} = entry;
  const {path} = files;
  const detail = {offset, minTxid, term};
  if (slot === 0 && files.firstTxid !== minTxid) {
    yield violation(
      'LOG_GAP',
      path,
      `Segment begins with transaction ${minTxid}, not with the one of its name`,
      detail,
    );
  }
  if (state.position !== undefined && !followsOn(entry, state.position)) {
    state.isBroken = true;
    const message = `Record of transaction ${minTxid} at byte ${offset} does not follow on ${formatPosition(state.position)}`;
    yield violation('LOG_GAP', path, message, detail);
    visitor.lost((minTxid - 1n) as Txid);
  }
  if (term < state.term) {
    yield violation(
      'LOG_TERM_FELL',
      path,
      `Transaction ${minTxid} has term ${term}, the one before it ${state.term}`,
      detail,
    );
  }
  state.term = term;
}

function followsOn(entry: LogEntry, position: Position): boolean {
  try {
    checkFollowsOn(
      {...toHeader(entry), preApplyChecksum: entry.minTxid === 1n ? 0n : entry.preApplyChecksum},
      position,
    );
    return true;
  } catch (error) {
    if (!(error instanceof LogError)) throw error;
    return false;
  }
}

function toHeader(entry: LogEntry): LtxHeader {
  return {...entry, nodeId: entry.term, noChecksum: false};
}

/** Compares a segment's index with what the segment holds. */
class IndexComparison {
  readonly #files: SegmentFiles;
  readonly #found = new Uint8Array(INDEX_ENTRY_SIZE);
  readonly #expected = new Uint8Array(INDEX_ENTRY_SIZE);
  #wrongCount = 0;
  #firstWrong = -1;

  constructor(files: SegmentFiles) {
    this.#files = files;
  }

  /** What the index says of the record at `offset`, where the record itself says nothing. */
  entryAt(slot: number, offset: number): LogEntry | undefined {
    const {index, path, size} = this.#files;
    if (index === undefined || index.read(slot * INDEX_ENTRY_SIZE, this.#found) < INDEX_ENTRY_SIZE)
      return undefined;
    const entry = decodeIndexEntry(this.#found, path);
    return entry?.offset === offset && offset + entry.size <= size ? entry : undefined;
  }

  compare(slot: number, entry: LogEntry): void {
    const {index} = this.#files;
    if (index === undefined) return;
    const count = index.read(slot * INDEX_ENTRY_SIZE, this.#found);
    encodeIndexEntry(entry, this.#expected);
    if (count === INDEX_ENTRY_SIZE && Buffer.compare(this.#found, this.#expected) === 0) return;
    if (this.#wrongCount++ === 0) this.#firstWrong = slot;
  }

  /** Behind the `count` entries of the records old ones may be left, which nobody reads. */
  *report(count: number, left: LeftBehind): Generator<Finding> {
    const {index, indexPath} = this.#files;
    const isExplained = left === 'rebooted' || (!isClosed(left) && this.#firstWrong >= count - 1);
    if (index === undefined) {
      yield noteIf(
        !isClosed(left) && count <= 1,
        'FILE_MISSING',
        indexPath,
        'Index of a segment is missing',
        {count},
      );
    } else if (this.#wrongCount > 0) {
      const message = `${this.#wrongCount} of ${count} entries do not say what the segment holds`;
      yield noteIf(isExplained, 'INDEX_MISMATCH', indexPath, message, {
        count,
        wrongCount: this.#wrongCount,
        firstSlot: this.#firstWrong,
      });
    }
  }
}
