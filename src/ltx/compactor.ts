import {assert} from '../lib/assert.ts';
import type {Crc64} from './crc64.ts';
import type {LtxDecoder} from './decoder.ts';
import {LtxEncoder} from './encoder.ts';
import {LtxError} from './error.ts';
import {defaultLockPgno, isSnapshot, type LtxHeader} from './header.ts';
import type {Checksum} from './position.ts';
import type {LtxTrailer} from './trailer.ts';

export interface CompactLtxOptions {
  /** Consecutive records, oldest first, each with its own `Crc64`; nothing may have been read from them yet. */
  readonly inputs: readonly LtxDecoder[];
  readonly crc64: Crc64;
  readonly compress: boolean;
  /** Takes the new record's bytes in order. A chunk is only valid during the call. */
  readonly write: (chunk: Uint8Array) => void;
  readonly lockPgno?: number;
}

/** The page at which one input stands. */
interface Cursor {
  readonly decoder: LtxDecoder;
  readonly inputIndex: number;
  /** Pages past the end of the database as the input before left it. */
  readonly grownFrom: number;
  grownCount: number;
  pgno: number;
  page: Uint8Array;
}

/**
 * Merges consecutive records into one with the last version of each page, so that applying it gives the same
 * database as applying them in turn. The result keeps the last input's time and node id (in our logs the term), and
 * says nothing about the WAL. Memory: one window and page per input.
 *
 * Closes the inputs. Throws `LTX_GAP`, `LTX_PAGE_SIZE_MISMATCH`, `LTX_BAD_HEADER` (an input without checksums),
 * `LTX_UNCOVERED_GROWTH` and what the inputs throw; what has been written is then no record.
 */
export function compactLtx(options: CompactLtxOptions): {
  header: LtxHeader;
  size: number;
  postApplyChecksum: Checksum;
} {
  const {inputs, crc64, compress, write} = options;
  const header = planHeader(inputs);
  const lockPgno = options.lockPgno ?? defaultLockPgno(header.pageSize);
  const encoder = new LtxEncoder({header, crc64, compress, write, lockPgno});
  const cursors = inputs.map((decoder, inputIndex): Cursor => {
    const grownFrom = inputIndex === 0 ? decoder.header.commit : inputs[inputIndex - 1].header.commit;
    return {decoder, inputIndex, grownFrom, grownCount: 0, pgno: 0, page: new Uint8Array(0)};
  });
  mergePages(cursors, header.commit, encoder);
  for (const cursor of cursors) checkGrowth(cursor, lockPgno);
  const postApplyChecksum = closeInputs(inputs);
  const {size} = encoder.close(postApplyChecksum);
  return {header, size, postApplyChecksum};
}

/** The header of the result, after checking that the inputs follow on each other. */
function planHeader(inputs: readonly LtxDecoder[]): LtxHeader {
  assert(inputs.length > 0, 'there is something to compact');
  const first = inputs[0].header;
  const last = inputs[inputs.length - 1].header;
  for (const {header} of inputs) {
    if (header.pageSize !== first.pageSize) {
      const detail = {pageSize: header.pageSize, firstPageSize: first.pageSize};
      throw new LtxError('LTX_PAGE_SIZE_MISMATCH', 'Cannot compact records: page sizes differ', detail);
    }
    if (header.noChecksum) {
      throw new LtxError('LTX_BAD_HEADER', 'Cannot compact records: one has no checksums', {
        minTxid: header.minTxid,
      });
    }
  }
  for (let i = 1; i < inputs.length; i++) {
    const {minTxid, maxTxid} = inputs[i].header;
    const before = inputs[i - 1].header.maxTxid;
    if (minTxid > before + 1n || maxTxid <= before) {
      const state = `txids ${minTxid} to ${maxTxid} come after ${before}`;
      throw new LtxError('LTX_GAP', `Cannot compact records: ${state}`, {minTxid, maxTxid, before});
    }
  }
  return {
    ...last,
    minTxid: first.minTxid,
    preApplyChecksum: first.preApplyChecksum,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
  };
}

/** Emits each page once, from the latest input that has it, as long as the database still reaches that far. */
function mergePages(cursors: readonly Cursor[], commit: number, encoder: LtxEncoder): void {
  const heap: Cursor[] = [];
  for (const cursor of cursors) {
    if (advance(cursor)) push(heap, cursor);
  }
  while (heap.length > 0) {
    const {pgno} = heap[0];
    if (pgno <= commit) encoder.encodePage(pgno, heap[0].page);
    while (heap.length > 0 && heap[0].pgno === pgno) {
      if (!advance(heap[0])) {
        const end = heap.pop();
        if (heap.length === 0 || end === undefined) return;
        heap[0] = end;
      }
      siftDown(heap);
    }
  }
}

/** Moves to the input's next page; false when there is none. */
function advance(cursor: Cursor): boolean {
  const next = cursor.decoder.nextPage();
  if (next === undefined) return false;
  cursor.pgno = next.pgno;
  cursor.page = next.page;
  if (next.pgno > cursor.grownFrom) cursor.grownCount++;
  return true;
}

/** Whether `a` comes out of the heap before `b`: the smaller page, and of the same page the later version. */
function isBefore(a: Cursor, b: Cursor): boolean {
  return a.pgno < b.pgno || (a.pgno === b.pgno && a.inputIndex > b.inputIndex);
}

function push(heap: Cursor[], cursor: Cursor): void {
  heap.push(cursor);
  let at = heap.length - 1;
  while (at > 0) {
    const parent = (at - 1) >>> 1;
    if (!isBefore(heap[at], heap[parent])) return;
    swap(heap, at, parent);
    at = parent;
  }
}

function siftDown(heap: Cursor[]): void {
  let at = 0;
  while (2 * at + 1 < heap.length) {
    let child = 2 * at + 1;
    if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
    if (!isBefore(heap[child], heap[at])) return;
    swap(heap, at, child);
    at = child;
  }
}

function swap(heap: Cursor[], a: number, b: number): void {
  [heap[a], heap[b]] = [heap[b], heap[a]];
}

/**
 * Checks that an input which makes the database longer holds every page of the new part. Otherwise a page that an
 * earlier input had written, and a shrink in between had removed, would come back with its old content.
 */
function checkGrowth({decoder, grownFrom, grownCount}: Cursor, lockPgno: number): void {
  const {commit, minTxid} = decoder.header;
  if (commit <= grownFrom) return;
  const hasLockPage = grownFrom < lockPgno && lockPgno <= commit;
  const expected = commit - grownFrom - (hasLockPage ? 1 : 0);
  if (grownCount !== expected) {
    const state = `txid ${minTxid} adds ${expected} pages and holds ${grownCount} of them`;
    throw new LtxError('LTX_UNCOVERED_GROWTH', `Cannot compact records: ${state}`, {
      minTxid,
      grownFrom,
      commit,
    });
  }
}

/** Verifies all inputs and the chain of checksums between them. Returns the last one's post-apply checksum. */
function closeInputs(inputs: readonly LtxDecoder[]): Checksum {
  let last: {header: LtxHeader; trailer: LtxTrailer} | undefined;
  for (const decoder of inputs) {
    const {header} = decoder;
    if (last !== undefined) checkChain(last.header, last.trailer, header);
    last = {header, trailer: decoder.close()};
  }
  assert(last !== undefined, 'there is something to compact');
  return last.trailer.postApplyChecksum as Checksum;
}

function checkChain(before: LtxHeader, trailer: LtxTrailer, header: LtxHeader): void {
  if (header.minTxid !== before.maxTxid + 1n || isSnapshot(header)) return;
  if (header.preApplyChecksum === trailer.postApplyChecksum) return;
  throw new LtxError('LTX_GAP', `Cannot compact records: txid ${header.minTxid} is for other content`, {
    preApplyChecksum: header.preApplyChecksum,
    postApplyChecksum: trailer.postApplyChecksum,
  });
}
