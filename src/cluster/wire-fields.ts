import type {Txid} from '../ltx/position.ts';
import {WireError, type WireReader, type WireWriter} from './wire-bytes.ts';

// 1 (0.1.0): the first.
/** Raised by any change to the frames below. Both ends must speak the same. */
export const STREAM_VERSION = 1;

/** The most databases in one `positions`, `catalogue`, `ack` or `credit` frame. */
export const PAGE_COUNT_MAX = 512;

/** Bytes of a database's name, as UTF-8. */
export const DATABASE_NAME_SIZE_MAX = 1024;

const STREAM_MAGIC = 0x46655374; // "FeSt"

export function writePreamble(w: WireWriter): void {
  w.u32(STREAM_MAGIC);
  w.u16(STREAM_VERSION);
}

export function readPreamble(r: WireReader): void {
  const magic = r.u32();
  if (magic !== STREAM_MAGIC)
    throw new WireError('WIRE_BAD_VALUE', 'Cannot open stream: the peer is no FerriteFS');
  const theirs = r.u16();
  if (theirs === STREAM_VERSION) return;
  throw new WireError(
    'WIRE_VERSION',
    `Cannot open stream: the peer speaks version ${theirs}, this node version ${STREAM_VERSION}`,
    {theirs, ours: STREAM_VERSION},
  );
}

export function writeList<T>(w: WireWriter, entries: readonly T[], write: (entry: T) => void): void {
  if (entries.length > PAGE_COUNT_MAX) {
    throw new WireError(
      'WIRE_OVERSIZE',
      `Cannot write list: ${entries.length} entries, at most ${PAGE_COUNT_MAX}`,
    );
  }
  w.u16(entries.length);
  for (const entry of entries) write(entry);
}

export function readList<T>(r: WireReader, read: () => T): T[] {
  const count = r.u16();
  if (count > PAGE_COUNT_MAX) {
    throw new WireError('WIRE_OVERSIZE', `Cannot read list: ${count} entries, at most ${PAGE_COUNT_MAX}`);
  }
  const entries: T[] = [];
  for (let index = 0; index < count; index++) entries.push(read());
  return entries;
}

export function writeId(w: WireWriter, frame: {readonly id: string}): void {
  w.id(frame.id);
}

export function writeName(w: WireWriter, frame: {readonly id: string; readonly name: string}): void {
  w.id(frame.id);
  w.text(frame.name, DATABASE_NAME_SIZE_MAX, 'database name');
}

export function readName(r: WireReader): {id: string; name: string} {
  return {id: r.id(), name: r.text(DATABASE_NAME_SIZE_MAX, 'database name')};
}

export interface Span {
  readonly id: string;
  readonly minTxid: Txid;
  readonly maxTxid: Txid;
}

export function writeSpan(w: WireWriter, span: Span): void {
  w.id(span.id);
  w.u64(span.minTxid);
  w.u64(span.maxTxid);
}

export function readSpan(r: WireReader): Span {
  const span = {id: r.id(), minTxid: r.txid(), maxTxid: r.txid()};
  if (span.minTxid === 0n || span.minTxid > span.maxTxid) {
    throw new WireError('WIRE_BAD_VALUE', `Cannot accept txids: ${span.minTxid} to ${span.maxTxid}`);
  }
  return span;
}

export function readPageSize(r: WireReader): number {
  const size = r.u32();
  const isPowerOfTwo = (size & (size - 1)) === 0;
  if (!isPowerOfTwo || size < 512 || size > 65_536) {
    throw new WireError('WIRE_BAD_VALUE', `Cannot accept page size: ${size}`);
  }
  return size;
}

export function readPgno(r: WireReader): number {
  const pgno = r.u32();
  if (pgno === 0) throw new WireError('WIRE_BAD_VALUE', 'Cannot accept pgno: 0');
  return pgno;
}
