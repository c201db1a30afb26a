import {decodeLtxHeader, LTX_HEADER_SIZE} from '../ltx/header.ts';
import {CHECKSUM_FLAG, type Checksum, type Position, type Txid, toTxid} from '../ltx/position.ts';
import {LogError} from './error.ts';
import type {LogEntry} from './log-entry.ts';
import type {Segment} from './segment.ts';
import {type RecordCodec, scanRecords} from './segment-scan.ts';

/** Entries of the last records, kept in memory: what is asked for most. */
const RECENT_COUNT_MAX = 64;

/** Finds entries: the recent ones in memory, others in the index files, which it makes anew when they are wrong. */
export class EntryLookup {
  readonly #codec: RecordCodec;
  /** Consecutive, ending with the log's last. */
  #recent: LogEntry[] = [];

  constructor(codec: RecordCodec) {
    this.#codec = codec;
  }

  /** A record was added at the end. */
  add(entry: LogEntry): void {
    this.#recent.push(entry);
    if (this.#recent.length >= 2 * RECENT_COUNT_MAX) this.#recent = this.#recent.slice(-RECENT_COUNT_MAX);
  }

  /** Records were dropped. */
  clear(): void {
    this.#recent = [];
  }

  /** Records up to `txid` were dropped. */
  forgetUpTo(txid: Txid): void {
    this.#recent = this.#recent.filter(entry => entry.minTxid > txid);
  }

  /** The entry whose record covers `txid`, which `segments` hold. */
  find(segments: readonly Segment[], txid: Txid): LogEntry | undefined {
    const [oldest] = this.#recent;
    if (oldest !== undefined && txid >= oldest.minTxid)
      return this.#recent.find(entry => entry.maxTxid >= txid);
    const segment = segments.findLast(candidate => candidate.firstTxid <= txid);
    return segment === undefined ? undefined : this.entryAt(segment, this.findSlot(segment, txid));
  }

  /** Entries from the one that covers `from` on, at most `countMax`. */
  list(segments: readonly Segment[], from: Txid, countMax: number): LogEntry[] {
    const [oldest] = this.#recent;
    if (oldest !== undefined && from >= oldest.minTxid) {
      const start = this.#recent.findIndex(entry => entry.maxTxid >= from);
      return start === -1 ? [] : this.#recent.slice(start, start + countMax);
    }
    const entries: LogEntry[] = [];
    for (const segment of segments) {
      if (segment.last === undefined || segment.last.maxTxid < from) continue;
      const start = from <= segment.firstTxid ? 0 : this.findSlot(segment, from);
      const end = Math.min(segment.count, start + countMax - entries.length);
      for (let slot = start; slot < end; slot++) entries.push(this.entryAt(segment, slot));
    }
    return entries;
  }

  /** The entry at `slot`. Throws `LOG_CORRUPT` when the segment itself does not hold it. */
  entryAt(segment: Segment, slot: number): LogEntry {
    const entry = segment.tryEntry(slot);
    if (entry !== undefined) return entry;
    this.#rebuild(segment);
    const rebuilt = segment.tryEntry(slot);
    if (rebuilt !== undefined) return rebuilt;
    throw new LogError('LOG_CORRUPT', `Cannot find record ${slot} of "${segment.fileName}"`, {
      segment: segment.fileName,
      slot,
    });
  }

  /** The slot whose record covers `txid`, which `segment` holds. */
  findSlot(segment: Segment, txid: Txid): number {
    // A record covers at least one transaction, and nearly always exactly one: then the first guess is right.
    let high = Math.min(Number(txid - segment.firstTxid), segment.count - 1);
    let low = 0;
    let middle = high;
    while (low < high) {
      const entry = this.entryAt(segment, middle);
      if (entry.minTxid > txid) high = middle - 1;
      else if (entry.maxTxid < txid) low = middle + 1;
      else return middle;
      middle = (low + high) >> 1;
    }
    return low;
  }

  #rebuild(segment: Segment): void {
    const head = new Uint8Array(LTX_HEADER_SIZE);
    const {minTxid, preApplyChecksum} = decodeLtxHeader(head.subarray(0, segment.read(0, head)));
    const checksum = (minTxid === 1n ? CHECKSUM_FLAG : preApplyChecksum) as Checksum;
    const position: Position = {txid: toTxid(minTxid - 1n), checksum};
    scanRecords(segment, {slot: 0, offset: 0, position}, segment.size, this.#codec);
  }
}
