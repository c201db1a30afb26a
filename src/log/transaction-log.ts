import {constants, existsSync} from 'node:fs';
import {dirname} from 'node:path';
import {assert} from '../lib/assert.ts';
import type {Disk} from '../lib/disk.ts';
import type {Crc64, Crc64Factory} from '../ltx/crc64.ts';
import {decodeLtxHeader, defaultLockPgno, LTX_HEADER_SIZE, type LtxHeader} from '../ltx/header.ts';
import {type Position, type Txid, toTxid} from '../ltx/position.ts';
import {type ByteSource, bytesSource} from '../ltx/record-reader.ts';
import {EntryLookup} from './entry-lookup.ts';
import {LogError} from './error.ts';
import {FilePool} from './file-pool.ts';
import {type LogBase, type LogIntent, NO_INTENT, writeLogBase} from './log-base.ts';
import {carryOut} from './log-cut.ts';
import {
  decodeRecordTrailer,
  type LogEntry,
  makeLogEntry,
  RECORD_SIZE_MIN,
  RECORD_TRAILER_SIZE,
} from './log-entry.ts';
import {checkFollowsOn} from './log-order.ts';
import {recoverLog} from './log-recovery.ts';
import {RecordWriter} from './record-writer.ts';
import {countExpired, type RetentionRules} from './retention.ts';
import {type LogFolder, Segment} from './segment.ts';
import {partSource, type RecordCodec} from './segment-scan.ts';
import type {SyncedMark} from './synced-mark.ts';
import {TAIL_BUFFER_SIZE_MAX, TailBuffer} from './tail-buffer.ts';

const SEGMENT_BYTES_MAX = 64 * 1024 * 1024;
/** The current segment and its index, the mark, and a few older segments that somebody reads. */
const OPEN_FILES_MAX = 8;
const LIST_COUNT_MAX = 256;

export interface TransactionLogOptions {
  readonly disk: Disk;
  /** The log's own folder, made if it is missing. */
  readonly directory: string;
  readonly crc64: Crc64Factory;
  /** A record is never split: it begins in a new segment when the current one has this many bytes. */
  readonly segmentBytesMax?: number;
  /** Number of the page that is never stored, where the pending byte is not at its usual place. */
  readonly lockPgno?: (pageSize: number) => number;
  /** After an unclean end: decode what is not known to be durable, and cut the first torn record and all after it. */
  readonly verifyTail: boolean;
}

/**
 * The transactions of one database in a folder of append-only segment files, byte for byte LTX records. One writer
 * at a time, on one thread; nothing is synced unless asked for. Memory does not grow with the number of records.
 */
export class TransactionLog {
  readonly #folder: LogFolder;
  readonly #codec: RecordCodec;
  readonly #writerCrc64: Crc64;
  readonly #segmentBytesMax: number;
  readonly #mark: SyncedMark;
  readonly #lookup: EntryLookup;
  readonly #buffer = new TailBuffer();
  readonly #cutBytes: number;
  #segments: Segment[];
  #base: LogBase;
  #position: Position;
  #term: bigint;
  #syncedTxid: Txid;
  #unsyncedBytes: number;
  /** The last transaction that the descriptors lent out cover. */
  #lentTxid: Txid;
  #writer: RecordWriter | undefined;
  /** Raised when records were cut: sources handed out before are void. */
  #generation = 0;
  /** Bytes of an abandoned record are still behind the last one, because cutting them off failed. */
  #hasStrayTail = false;
  #isFailed = false;

  /** Opens or makes the log in `directory`. Throws `LOG_FOREIGN` or `LOG_CORRUPT`, having deleted no record. */
  static open(options: TransactionLogOptions): TransactionLog {
    const {disk, directory} = options;
    if (!existsSync(directory)) {
      disk.makeDirectory('log:make-directory', directory);
      disk.syncDirectory('log:sync-parent', dirname(directory));
    }
    const folder: LogFolder = {disk, directory, pool: new FilePool(disk, OPEN_FILES_MAX)};
    try {
      return new TransactionLog(options, folder);
    } catch (error) {
      folder.pool.close();
      throw error;
    }
  }

  private constructor(options: TransactionLogOptions, folder: LogFolder) {
    this.#folder = folder;
    this.#codec = {crc64: options.crc64.create(), lockPgno: options.lockPgno ?? defaultLockPgno};
    this.#writerCrc64 = options.crc64.create();
    this.#segmentBytesMax = options.segmentBytesMax ?? SEGMENT_BYTES_MAX;
    this.#lookup = new EntryLookup(this.#codec);
    const found = recoverLog(folder, this.#codec, options.verifyTail);
    this.#base = found.base;
    this.#segments = found.segments;
    this.#mark = found.mark;
    this.#cutBytes = found.cutBytes;
    const last = found.segments.at(-1)?.last;
    this.#position = positionAfter(last) ?? found.base.position;
    this.#term = last?.term ?? found.base.term;
    this.#syncedTxid = found.syncedTxid;
    this.#lentTxid = found.syncedTxid;
    this.#unsyncedBytes = this.#bytesAfter(found.syncedTxid);
  }

  /** What stands before the first record. */
  get base(): LogBase {
    return this.#base;
  }

  /** The position after the last record, or of the base. */
  get position(): Position {
    return this.#position;
  }

  /** The term of the last record, or of the base. */
  get term(): bigint {
    return this.#term;
  }

  /** Bytes of torn or unreachable records that `open` cut off. */
  get cutBytesAtOpen(): number {
    return this.#cutBytes;
  }

  /** Bytes of all records. */
  get size(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.size, 0);
  }

  /** Bytes of the records after `syncedTxid`. */
  get unsyncedBytes(): number {
    return this.#unsyncedBytes;
  }

  /** Every record up to here is durable. */
  get syncedTxid(): Txid {
    return this.#syncedTxid;
  }

  first(): LogEntry | undefined {
    const [segment] = this.#segments;
    return segment === undefined || segment.count === 0 ? undefined : this.#lookup.entryAt(segment, 0);
  }

  last(): LogEntry | undefined {
    return this.#segments.findLast(segment => segment.count > 0)?.last;
  }

  /** The entry whose record covers `txid`. */
  entry(txid: Txid): LogEntry | undefined {
    if (txid <= this.#base.position.txid || txid > this.#position.txid) return undefined;
    return this.#lookup.find(this.#segments, txid);
  }

  /** Entries whose records end at `from` or later, in order, at most `countMax`. */
  entries(from: Txid, countMax: number): LogEntry[] {
    return this.#lookup.list(this.#segments, from, countMax);
  }

  /**
   * The record's bytes, read from the segment when asked for; appends may go on. Its `read` throws `LOG_GONE` once the
   * record has been dropped.
   */
  read(entry: LogEntry): ByteSource {
    const segment = this.#segments.find(candidate => candidate.fileName === entry.segment);
    if (segment === undefined || entry.offset + entry.size > segment.size) throw gone(entry);
    const generation = this.#generation;
    const read = (position: number, target: Uint8Array) => {
      if (segment.isGone || generation !== this.#generation) throw gone(entry);
      return segment.read(position, target);
    };
    return partSource({read}, entry.offset, entry.size);
  }

  /** Path of the segment that holds the record, for other threads: what they have open outlives its removal. */
  path(entry: LogEntry): string {
    const segment = this.#segments.find(candidate => candidate.fileName === entry.segment);
    if (segment === undefined) throw gone(entry);
    return segment.path;
  }

  /**
   * Begins the record after the last one; until it is published or aborted nothing else can be written. Throws `LOG_GAP` when
   * the header does not follow on, `LOG_BAD_RECORD`, `LtxError`, and what the disk throws.
   */
  begin(header: LtxHeader, options: {readonly compress: boolean}): RecordWriter {
    this.#checkFollowsOn(header);
    const segment = this.#tailSegment();
    const writer: RecordWriter = new RecordWriter(header, {
      segment,
      buffer: this.#buffer,
      crc64: this.#writerCrc64,
      compress: options.compress,
      lockPgno: this.#codec.lockPgno(header.pageSize),
      publish: entry => {
        this.#writer = undefined;
        this.#publish(segment, entry);
      },
      giveUp: () => {
        this.#writer = undefined;
        this.#cutStrayTail(segment);
      },
    });
    this.#writer = writer;
    return writer;
  }

  /** Adds a whole record, which the caller has verified, as it is. Throws as `begin` does. */
  append(record: Uint8Array): LogEntry {
    return this.appendFrom(bytesSource(record));
  }

  /** As `append`, for records that are not in memory. */
  appendFrom(source: ByteSource): LogEntry {
    if (source.size < RECORD_SIZE_MIN) throw tooShort(source.size);
    const header = decodeLtxHeader(readExactly(source, 0, LTX_HEADER_SIZE));
    this.#checkFollowsOn(header);
    const trailer = decodeRecordTrailer(
      readExactly(source, source.size - RECORD_TRAILER_SIZE, RECORD_TRAILER_SIZE),
    );
    const segment = this.#tailSegment();
    const place = {segment: segment.fileName, offset: segment.size, size: source.size, ...trailer};
    const entry = makeLogEntry(header, place);
    try {
      copyTo(segment, source);
      segment.writeEntry(segment.count, entry);
    } catch (error) {
      this.#cutStrayTail(segment);
      throw error;
    }
    this.#publish(segment, entry);
    return entry;
  }

  /**
   * Drops all records after `txid`, durably. First each of them is given to `discarded`, in order, to be kept elsewhere; if that
   * throws, nothing is dropped. Throws `LOG_NOT_FOUND` unless `txid` is the base's or the last of a record.
   */
  cutAfter(txid: Txid, discarded: (source: ByteSource, entry: LogEntry) => void): void {
    this.#checkIdle();
    const kept = txid === this.#base.position.txid ? undefined : this.entry(txid);
    if (kept?.maxTxid !== txid && txid !== this.#base.position.txid) {
      throw new LogError('LOG_NOT_FOUND', `Cannot cut log after ${txid}: no record ends there`, {
        txid,
        position: this.#position,
      });
    }
    if (txid === this.#position.txid) return;
    this.#handOver(txid, discarded);
    const segment = this.#segments.find(candidate => candidate.fileName === kept?.segment);
    const count = segment === undefined ? 0 : this.#lookup.findSlot(segment, txid) + 1;
    this.#mark.lower(txid < this.#syncedTxid ? txid : this.#syncedTxid);
    this.#change(this.#base, {
      kind: 'cut',
      after: txid,
      segmentSize: kept === undefined ? 0 : kept.offset + kept.size,
    });
    if (segment !== undefined && kept !== undefined) {
      segment.size = kept.offset + kept.size;
      segment.count = count;
      segment.last = kept;
    }
    this.#position = positionAfter(kept) ?? this.#base.position;
    this.#term = kept?.term ?? this.#base.term;
    if (this.#syncedTxid > txid) this.#syncedTxid = txid;
    if (this.#lentTxid > txid) this.#lentTxid = txid;
    this.#unsyncedBytes = this.#bytesAfter(this.#syncedTxid);
  }

  /** Drops everything and goes on after `base`, durably: after a snapshot. */
  reset(base: LogBase): void {
    this.#checkIdle();
    this.#mark.lower(toTxid(0n));
    this.#change(base, {kind: 'reset'});
    this.#base = base;
    this.#position = base.position;
    this.#term = base.term;
    this.#syncedTxid = base.position.txid;
    this.#lentTxid = base.position.txid;
    this.#unsyncedBytes = 0;
  }

  /** Drops the oldest segments that `rules` do not keep. Returns how many. Syncs what it must. */
  prune(rules: RetentionRules): number {
    this.#checkUsable();
    const count = countExpired(this.#segments, rules);
    const last = this.#segments[count - 1]?.last;
    if (last === undefined) return 0;
    if (last.maxTxid > this.#syncedTxid) this.sync();
    const base: LogBase = {position: {txid: last.maxTxid, checksum: last.postApplyChecksum}, term: last.term};
    writeLogBase(this.#folder.disk, this.#folder.directory, base, NO_INTENT);
    this.#base = base;
    const dropped = this.#segments.splice(0, count);
    this.#lookup.forgetUpTo(base.position.txid);
    for (const segment of dropped) segment.unlink();
    return count;
  }

  /**
   * Descriptors to fdatasync, on any thread, to make all records of this moment durable; then `markSynced`. They stay
   * open until then or `close`: let one such sync end before the next begins.
   */
  syncTargets(): readonly number[] {
    this.#checkUsable();
    this.#lentTxid = this.#position.txid;
    if (this.#unsyncedBytes === 0) return [];
    this.#folder.pool.lend();
    return [...this.#unsyncedFiles()];
  }

  /** The sync of `syncTargets` has ended: what was in the log at that time, up to `upTo`, is durable. */
  markSynced(upTo: Txid): void {
    this.#folder.pool.settle();
    this.#raiseSynced(upTo < this.#lentTxid ? upTo : this.#lentTxid);
  }

  /** Makes all records durable before it returns. */
  sync(): void {
    this.#checkUsable();
    for (const fd of this.#unsyncedFiles()) this.#folder.disk.sync('log:sync', fd);
    this.#raiseSynced(this.#position.txid);
  }

  /** Closes the files, syncing nothing. A record that is being written is given up. */
  close(): void {
    this.#writer?.abort();
    this.#isFailed = true;
    this.#folder.pool.close();
  }

  #checkUsable(): void {
    if (!this.#isFailed) return;
    throw new LogError('LOG_FAILED', 'Cannot use log: it is closed or a change of it failed, open it again', {
      directory: this.#folder.directory,
    });
  }

  #checkIdle(): void {
    this.#checkUsable();
    assert(this.#writer === undefined, 'one record is written at a time');
  }

  #checkFollowsOn(header: LtxHeader): void {
    this.#checkIdle();
    checkFollowsOn(header, this.#position);
  }

  /** The segment that takes the next record. */
  #tailSegment(): Segment {
    const current = this.#segments.at(-1);
    if (current !== undefined && this.#hasStrayTail) {
      current.truncate(current.size);
      this.#hasStrayTail = false;
    }
    if (current !== undefined && current.size < this.#segmentBytesMax) return current;
    const segment = new Segment(this.#folder, toTxid(this.#position.txid + 1n));
    segment.create();
    this.#segments.push(segment);
    return segment;
  }

  #publish(segment: Segment, entry: LogEntry): void {
    segment.add(entry);
    this.#lookup.add(entry);
    this.#position = {txid: entry.maxTxid, checksum: entry.postApplyChecksum};
    this.#term = entry.term;
    this.#unsyncedBytes += entry.size;
  }

  /** Only an attempt: whoever calls has a better error to throw, and the next record tries again. */
  #cutStrayTail(segment: Segment): void {
    try {
      if (segment.fileSize() > segment.size) segment.truncate(segment.size);
    } catch {
      this.#hasStrayTail = true;
    }
  }

  #handOver(after: Txid, discarded: (source: ByteSource, entry: LogEntry) => void): void {
    for (let from = after + 1n; from <= this.#position.txid; ) {
      const entries = this.entries(toTxid(from), LIST_COUNT_MAX);
      for (const entry of entries) discarded(this.read(entry), entry);
      from = (entries.at(-1)?.maxTxid ?? this.#position.txid) + 1n;
    }
  }

  /** Notes the intent, carries it out and takes it back. When that fails half way only a new `open` may go on. */
  #change(base: LogBase, intent: LogIntent): void {
    const {disk, directory} = this.#folder;
    this.#isFailed = true;
    writeLogBase(disk, directory, base, intent);
    this.#segments = [...carryOut(this.#folder, this.#segments, intent)];
    writeLogBase(disk, directory, base, NO_INTENT);
    this.#isFailed = false;
    this.#generation += 1;
    this.#hasStrayTail = false;
    this.#lookup.clear();
  }

  /** One descriptor after the other: unless they are lent, each is good until the next. */
  *#unsyncedFiles(): Generator<number> {
    const {pool, directory} = this.#folder;
    const unsynced = this.#segments.filter(({last}) => last !== undefined && last.maxTxid > this.#syncedTxid);
    for (const segment of unsynced) yield segment.fd();
    // A segment's name is durable once a record in it has been marked.
    const newest = unsynced.at(-1);
    if (newest === undefined || newest.firstTxid <= this.#syncedTxid) return;
    yield pool.open('log:directory-open', directory, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  #raiseSynced(txid: Txid): void {
    if (txid <= this.#syncedTxid) return;
    this.#syncedTxid = txid;
    this.#unsyncedBytes = this.#bytesAfter(txid);
    this.#mark.raise(txid);
  }

  #bytesAfter(txid: Txid): number {
    if (txid >= this.#position.txid) return 0;
    const later = this.#segments.filter(segment => segment.firstTxid > txid);
    const bytes = later.reduce((sum, segment) => sum + segment.size, 0);
    const entry = this.entry(txid);
    const holder = this.#segments[this.#segments.length - later.length - 1];
    if (entry === undefined || holder === undefined) return bytes;
    return bytes + holder.size - entry.offset - (entry.maxTxid > txid ? 0 : entry.size);
  }
}

function positionAfter(entry: LogEntry | undefined): Position | undefined {
  return entry === undefined ? undefined : {txid: entry.maxTxid, checksum: entry.postApplyChecksum};
}

function gone(entry: LogEntry): LogError {
  return new LogError(
    'LOG_GONE',
    `Cannot read record of transaction ${entry.minTxid}: the log has dropped it`,
    {
      minTxid: entry.minTxid,
      segment: entry.segment,
    },
  );
}

function tooShort(size: number): LogError {
  return new LogError('LOG_BAD_RECORD', `Cannot log record: it ends after ${size} bytes`, {size});
}

function readExactly(source: ByteSource, position: number, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  const count = source.read(position, bytes);
  if (count !== size) throw tooShort(position + count);
  return bytes;
}

/** Writes all of `source` at the end of `segment`: what is in memory as one write, other things in parts. */
function copyTo(segment: Segment, source: ByteSource): void {
  if (source.bytes !== undefined) {
    segment.write(source.bytes, segment.size);
    return;
  }
  const part = new Uint8Array(Math.min(source.size, TAIL_BUFFER_SIZE_MAX));
  for (let done = 0; done < source.size; ) {
    const count = source.read(done, part.subarray(0, Math.min(part.length, source.size - done)));
    if (count === 0) throw tooShort(done);
    segment.write(part.subarray(0, count), segment.size + done);
    done += count;
  }
}
