import {assert} from '../lib/assert.ts';
import type {Crc64} from '../ltx/crc64.ts';
import {LtxEncoder} from '../ltx/encoder.ts';
import type {LtxHeader} from '../ltx/header.ts';
import type {Checksum} from '../ltx/position.ts';
import {type LogEntry, makeLogEntry} from './log-entry.ts';
import type {Segment} from './segment.ts';
import type {TailBuffer} from './tail-buffer.ts';

/** What the log gives its one writer. */
export interface RecordTarget {
  readonly segment: Segment;
  readonly buffer: TailBuffer;
  readonly crc64: Crc64;
  readonly compress: boolean;
  readonly lockPgno: number;
  /** Takes the finished record into the log; writes nothing. */
  readonly publish: (entry: LogEntry) => void;
  /** The record is given up: the segment ends before it again. */
  readonly giveUp: () => void;
}

type WriterState = {at: 'pages'} | {at: 'finished'; entry: LogEntry} | {at: 'done'};

/**
 * Writes one record at the end of the log: pages in ascending order, `finish`, `publish`. Nobody sees the record
 * before it is published. When a step throws, the record is given up as by `abort`, and the log is as it was before.
 */
export class RecordWriter {
  readonly #header: LtxHeader;
  readonly #target: RecordTarget;
  readonly #encoder: LtxEncoder;
  #state: WriterState = {at: 'pages'};

  /** Made by `TransactionLog.begin`. */
  constructor(header: LtxHeader, target: RecordTarget) {
    this.#header = header;
    this.#target = target;
    const {segment, buffer, crc64, compress, lockPgno} = target;
    buffer.start(segment.size, (bytes, position) => segment.write(bytes, position));
    const write = (chunk: Uint8Array) => buffer.append(chunk);
    this.#encoder = new LtxEncoder({header, crc64, compress, lockPgno, write});
  }

  /** Bytes of the record so far. */
  get size(): number {
    return this.#encoder.size;
  }

  /** Adds a page, which is copied. Throws `LtxError` for a page out of order or bounds, and what the disk throws. */
  encodePage(pgno: number, page: Uint8Array): void {
    assert(this.#state.at === 'pages', 'the record takes pages');
    this.#guard(() => this.#encoder.encodePage(pgno, page));
  }

  /**
   * Writes the rest of the record and its index entry. From here on a recovery after a crash may find the record. Throws
   * `LtxError` for a wrong checksum, and what the disk throws.
   */
  finish(postApplyChecksum: Checksum): void {
    assert(this.#state.at === 'pages', 'the record takes pages');
    this.#guard(() => {
      const {segment, buffer} = this.#target;
      const {size, fileChecksum} = this.#encoder.close(postApplyChecksum);
      buffer.flush();
      const place = {segment: segment.fileName, offset: segment.size, size, postApplyChecksum, fileChecksum};
      const entry = makeLogEntry(this.#header, place);
      segment.writeEntry(segment.count, entry);
      this.#state = {at: 'finished', entry};
    });
  }

  /** Makes the finished record the log's last. Touches no disk and cannot fail. */
  publish(): LogEntry {
    assert(this.#state.at === 'finished', 'the record is finished');
    const {entry} = this.#state;
    this.#state = {at: 'done'};
    this.#target.publish(entry);
    return entry;
  }

  /** `finish` and `publish`. */
  commit(postApplyChecksum: Checksum): LogEntry {
    this.finish(postApplyChecksum);
    return this.publish();
  }

  /** Gives the record up, finished or not. Nothing happens when it was published or given up before. */
  abort(): void {
    if (this.#state.at === 'done') return;
    this.#state = {at: 'done'};
    this.#target.giveUp();
  }

  #guard(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.abort();
      throw error;
    }
  }
}
