import type {Crc64} from '../ltx/crc64.ts';
import {LtxDecoder, measureLtx} from '../ltx/decoder.ts';
import {LtxError} from '../ltx/error.ts';
import {decodeLtxHeader, LTX_HEADER_SIZE} from '../ltx/header.ts';
import type {Checksum, Position} from '../ltx/position.ts';
import type {ByteSource} from '../ltx/record-reader.ts';
import {LogError} from './error.ts';
import {encodeIndexEntry, INDEX_ENTRY_SIZE, type LogEntry, makeLogEntry} from './log-entry.ts';
import {checkFollowsOn} from './log-order.ts';
import type {Segment} from './segment.ts';

/** What reading records takes beside the files. */
export interface RecordCodec {
  /** For whole records, one at a time. */
  readonly crc64: Crc64;
  /** Number of the page that is never stored, for a page size. */
  readonly lockPgno: (pageSize: number) => number;
}

/** `size` bytes from `start` on of something longer, as if they were all of it. */
export function partSource(whole: Pick<ByteSource, 'read'>, start: number, size: number): ByteSource {
  return {
    size,
    read(position, target) {
      const room = Math.max(0, size - position);
      return whole.read(start + position, target.length > room ? target.subarray(0, room) : target);
    },
  };
}

/** Whether `error` says that the bytes of a record are wrong, and not that reading them failed. */
export function isBadRecord(error: unknown): boolean {
  return (
    error instanceof LtxError ||
    (error instanceof LogError && (error.code === 'LOG_BAD_RECORD' || error.code === 'LOG_GAP'))
  );
}

/** Decodes a whole record, which checks every byte of it. Throws `LtxError`. */
export function verifyRecord(source: ByteSource, pageSize: number, codec: RecordCodec): void {
  new LtxDecoder({source, crc64: codec.crc64, lockPgno: codec.lockPgno(pageSize)}).close();
}

/** Where to read on in a segment, after its first `slot` records. */
export interface ScanStart {
  readonly slot: number;
  readonly offset: number;
  /** After those records. */
  readonly position: Position;
}

/** The entries that a scan found, in order; `torn` is why it ended before the file did. */
export interface ScanResult {
  readonly count: number;
  readonly last: LogEntry | undefined;
  readonly torn: Error | undefined;
}

/**
 * Reads the records of `segment` from `start` to `end` (an offset), and writes their entries to its index. Every
 * record is decoded. Stops at the first one that is not whole, sound and next in order. Counts nothing in `segment` itself.
 */
export function scanRecords(segment: Segment, start: ScanStart, end: number, codec: RecordCodec): ScanResult {
  const index = new IndexBatch(segment, start.slot);
  const source = partSource(segment, 0, end);
  let {offset, position} = start;
  let last: LogEntry | undefined;
  let torn: Error | undefined;
  while (offset < end) {
    try {
      last = readEntry({segment, source, offset, position, codec});
    } catch (error) {
      if (!isBadRecord(error)) throw error;
      torn = error as Error;
      break;
    }
    index.add(last);
    offset += last.size;
    position = {txid: last.maxTxid, checksum: last.postApplyChecksum};
  }
  return {count: index.flush(), last, torn};
}

interface RecordRead {
  readonly segment: Segment;
  readonly source: ByteSource;
  readonly offset: number;
  readonly position: Position;
  readonly codec: RecordCodec;
}

function readEntry({segment, source, offset, position, codec}: RecordRead): LogEntry {
  const head = new Uint8Array(LTX_HEADER_SIZE);
  const {pageSize} = decodeLtxHeader(head.subarray(0, source.read(offset, head)));
  const {header, trailer, size} = measureLtx(source, offset, codec.lockPgno(pageSize));
  checkFollowsOn(header, position);
  const postApplyChecksum = trailer.postApplyChecksum as Checksum;
  const entry = makeLogEntry(header, {
    segment: segment.fileName,
    offset,
    size,
    ...trailer,
    postApplyChecksum,
  });
  verifyRecord(partSource(source, offset, size), pageSize, codec);
  return entry;
}

/** Index entries of consecutive slots, written many at a time. */
class IndexBatch {
  readonly #segment: Segment;
  readonly #bytes = new Uint8Array(256 * INDEX_ENTRY_SIZE);
  #slot: number;
  #used = 0;
  #count = 0;

  constructor(segment: Segment, slot: number) {
    this.#segment = segment;
    this.#slot = slot;
  }

  add(entry: LogEntry): void {
    encodeIndexEntry(entry, this.#bytes.subarray(this.#used, this.#used + INDEX_ENTRY_SIZE));
    this.#used += INDEX_ENTRY_SIZE;
    this.#count += 1;
    if (this.#used === this.#bytes.length) this.flush();
  }

  /** Writes what is left. Returns the number of entries added so far. */
  flush(): number {
    if (this.#used > 0) this.#segment.writeEntries(this.#slot, this.#bytes.subarray(0, this.#used));
    this.#slot += this.#used / INDEX_ENTRY_SIZE;
    this.#used = 0;
    return this.#count;
  }
}
