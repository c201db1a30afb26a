import {CHECKSUM_HEADER_SIZE, type ChecksumHeader, decodeChecksumHeader} from '../log/checksum-header.ts';
import type {LogBase} from '../log/log-base.ts';
import type {LogEntry} from '../log/log-entry.ts';
import type {LtxHeader} from '../ltx/header.ts';
import {formatPosition, type Position, type Txid} from '../ltx/position.ts';
import {type Finding, guarded, noteIf, violation} from './finding.ts';
import type {InputFolder} from './input-folder.ts';
import {isClosed, type LeftBehind} from './left-behind.ts';
import type {LogEnd} from './log-check.ts';
import {PageSums} from './page-sums.ts';
import type {LogVisitor, RecordPages} from './segment-check.ts';

/** What the content of a database must be, as far as that is known. */
export interface ExpectedContent {
  readonly position: Position;
  readonly pageSize: number;
  /** Size in pages. */
  readonly commit: number;
  readonly sums: PageSums;
  /** Whether `sums` has every page; else one that it lacks may hold anything. */
  readonly isComplete: boolean;
  /** Follower: pages that the log sets after what the files have. */
  readonly lagging: PageSums;
  /** The record of which the content is; undefined: the base's, or not known. */
  readonly last: LogEntry | undefined;
  /** Pages of that record, if they were asked for. */
  readonly lastPgnos: readonly number[];
}

export interface ChecksumReplayOptions {
  /** The header of the file; undefined: the file says nothing. */
  readonly header: ChecksumHeader | undefined;
  readonly sums: PageSums;
  /** Follower: the transaction up to which the files have everything. */
  readonly applied: Position | undefined;
  /** A last transaction that is taken back if `isPendingUndone`; 0 if none. */
  readonly pendingTxid: bigint;
  /** Whether the pages of the last record are asked for. */
  readonly wantsLast: boolean;
}

/** Reads the page checksums into memory: 8 bytes a page. A header that is no header is a finding. */
export function* loadChecksums(
  folder: InputFolder,
  path: string,
  left: LeftBehind,
): Generator<Finding, {readonly header: ChecksumHeader | undefined; readonly sums: PageSums}> {
  const sums = new PageSums();
  const header = yield* guarded(path, function* () {
    const file = folder.open(path);
    if (file === undefined) {
      yield noteIf(
        !isClosed(left),
        'FILE_MISSING',
        path,
        'Page checksums are missing: the next start makes them anew',
      );
      return undefined;
    }
    try {
      const sector = new Uint8Array(CHECKSUM_HEADER_SIZE);
      const found = decodeChecksumHeader(sector.subarray(0, file.read(0, sector)));
      if (found !== undefined) sums.load(file, CHECKSUM_HEADER_SIZE, found.pageCount);
      else {
        const isVoid = sector.every(byte => byte === 0);
        const message = isVoid
          ? 'Page checksums are declared void'
          : 'Header of the page checksums is damaged';
        yield noteIf(
          isVoid && !isClosed(left),
          'CHECKSUMS_CORRUPT',
          path,
          `${message}: the next start makes them anew`,
          {isVoid},
        );
      }
      return found;
    } finally {
      file.close();
    }
  });
  return {header, sums};
}

/**
 * Brings the page checksums up to the log's end while the log is read, as a start of the daemon does, and finds out
 * whether they belong to this log at all.
 */
export class ChecksumReplay implements LogVisitor {
  readonly #options: ChecksumReplayOptions;
  readonly #sums: PageSums;
  readonly #lagging = new PageSums();
  #header: ChecksumHeader | undefined;
  #isHeaderInLog = false;
  #isForeign = false;
  #isComplete: boolean;
  #isEndLost = false;
  #isAppliedInLog = false;
  #base: LogBase | undefined;
  #last: LogEntry | undefined;
  #lastPgnos: readonly number[] = [];
  #held: {readonly entry: LogEntry; readonly pages: RecordPages} | undefined;

  constructor(options: ChecksumReplayOptions) {
    this.#options = options;
    this.#header = options.header;
    this.#sums = options.sums;
    this.#isComplete = options.header !== undefined;
  }

  begin(base: LogBase | undefined): void {
    this.#base = base;
    const header = this.#header;
    if (base === undefined) {
      this.#isHeaderInLog = header !== undefined; // Nothing says otherwise.
      return;
    }
    const {txid} = base.position;
    if (header === undefined) this.#isComplete = txid === 0n;
    else if (header.position.txid === txid) this.#match(base.position, base.term);
    else if (header.position.txid < txid) this.#distrust();
    if (this.#options.applied?.txid === txid)
      this.#isAppliedInLog = this.#options.applied.checksum === base.position.checksum;
  }

  wantsPages({maxTxid}: LtxHeader): boolean {
    const {applied, wantsLast} = this.#options;
    return wantsLast || maxTxid > this.#replayedTxid || (applied !== undefined && maxTxid > applied.txid);
  }

  record(entry: LogEntry, pages: RecordPages): void {
    this.#settle();
    if (entry.maxTxid === this.#options.pendingTxid) this.#held = {entry, pages};
    else this.#apply(entry, pages);
  }

  lost(upTo: Txid | undefined): void {
    this.#settle();
    const header = this.#header;
    if (upTo === undefined) {
      this.#isEndLost = true;
      // The table may know more than the part of the log that can be read.
      if (header !== undefined && header.position.txid > (this.#last?.maxTxid ?? 0n)) return;
    }
    if (upTo !== undefined && upTo <= this.#replayedTxid) return;
    this.#isHeaderInLog = header !== undefined;
    this.#sums.clear();
    this.#isComplete = false;
  }

  /** Says what the content must be; undefined where nothing is known. `isPendingUndone`: the pending transaction never was. */
  *finish(
    end: LogEnd,
    isPendingUndone: boolean,
    paths: {readonly checksums: string; readonly position: string},
  ): Generator<Finding, ExpectedContent | undefined> {
    if (isPendingUndone) this.#held = undefined;
    this.#settle();
    const {header} = this.#options;
    const logTxid = this.#last?.maxTxid ?? this.#base?.position.txid ?? 0n;
    const isHeaderAhead = header !== undefined && !this.#isForeign && header.position.txid > logTxid;
    if (isHeaderAhead && !end.isBroken) this.#distrust();
    yield* this.#report(end, paths);
    if (isHeaderAhead && end.isBroken)
      return this.#expect(header.position, header.pageSize, header.pageCount);
    const isBehindLast = end.isBroken && end.position?.txid !== this.#last?.maxTxid;
    if (this.#isEndLost || this.#isApplyUnknown || isBehindLast) return undefined;
    return this.#expectLogEnd();
  }

  /** A follower's files were never said to be anywhere that this log reaches back to. */
  get #isApplyUnknown(): boolean {
    return this.#options.applied?.txid === 0n && this.#base?.position.txid !== 0n;
  }

  *#report(end: LogEnd, paths: {readonly checksums: string; readonly position: string}): Generator<Finding> {
    const {header, applied} = this.#options;
    if (this.#isForeign && header !== undefined) {
      const {position, term} = header;
      const message = `Page checksums stand at ${formatPosition(position)}, which is not in the log`;
      yield violation('CHECKSUMS_NOT_IN_LOG', paths.checksums, message, {position, term});
    }
    if (applied === undefined || this.#isApplyUnknown || this.#isAppliedInLog || end.isBroken) return;
    const message = `Files stand at ${formatPosition(applied)}, which is not in the log`;
    yield violation('POSITION_BAD', paths.position, message, {applied});
  }

  #expectLogEnd(): ExpectedContent | undefined {
    const last = this.#last;
    if (last !== undefined) {
      const position = {txid: last.maxTxid, checksum: last.postApplyChecksum};
      return this.#expect(position, last.pageSize, last.commit);
    }
    const position = this.#base?.position;
    if (position === undefined) return undefined;
    if (position.txid === 0n) return this.#expect(position, 0, 0);
    const {header} = this.#options;
    if (header === undefined || this.#isForeign) return undefined;
    return this.#expect(position, header.pageSize, header.pageCount);
  }

  #expect(position: Position, pageSize: number, commit: number): ExpectedContent {
    const last = this.#last?.maxTxid === position.txid ? this.#last : undefined;
    return {
      position,
      pageSize,
      commit,
      sums: this.#sums,
      isComplete: this.#isComplete,
      lagging: this.#lagging,
      last,
      lastPgnos: last === undefined ? [] : this.#lastPgnos,
    };
  }

  /** Up to here the table has what the log says. */
  get #replayedTxid(): bigint {
    return this.#header?.position.txid ?? 0n;
  }

  #settle(): void {
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined) this.#apply(held.entry, held.pages);
  }

  #apply(entry: LogEntry, pages: RecordPages): void {
    const {header} = this.#options;
    if (
      header !== undefined &&
      !this.#isHeaderInLog &&
      !this.#isForeign &&
      entry.maxTxid >= header.position.txid
    ) {
      this.#match({txid: entry.maxTxid, checksum: entry.postApplyChecksum}, entry.term);
    }
    if (entry.maxTxid > this.#replayedTxid) this.#setPages(entry, pages);
    const {applied} = this.#options;
    if (applied !== undefined && entry.maxTxid === applied.txid)
      this.#isAppliedInLog = entry.postApplyChecksum === applied.checksum;
    if (applied !== undefined && entry.maxTxid > applied.txid)
      for (const pgno of pages.pgnos) this.#lagging.set(pgno, 1n);
    this.#last = entry;
    this.#lastPgnos = pages.pgnos;
  }

  #setPages(entry: LogEntry, {pgnos, checksums}: RecordPages): void {
    const pageSize = this.#last?.pageSize ?? this.#header?.pageSize ?? entry.pageSize;
    if (pageSize !== entry.pageSize) this.#sums.clear();
    this.#sums.truncate(entry.commit);
    for (let i = 0; i < pgnos.length; i++) this.#sums.set(pgnos[i], checksums[i]);
  }

  #match(position: Position, term: bigint): void {
    const header = this.#header;
    if (header === undefined) return;
    if (
      position.txid === header.position.txid &&
      position.checksum === header.position.checksum &&
      term === header.term
    )
      this.#isHeaderInLog = true;
    else this.#distrust();
  }

  #distrust(): void {
    this.#isForeign = true;
    this.#header = undefined;
    this.#isComplete = false;
    this.#sums.clear();
  }
}
