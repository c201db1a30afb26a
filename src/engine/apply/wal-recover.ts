import {SqliteFormatError} from '../../sqlite/error.ts';
import {
  decodeWalHeader,
  frameCount,
  frameOffset,
  type StoredWalHeader,
  verifyWalFrame,
  WAL_FRAME_HEADER_SIZE,
  WAL_HEADER_SIZE,
} from '../../sqlite/wal.ts';
import {
  READMARK_NOT_USED,
  readWalIndexHeader,
  WALINDEX_HDR_SIZE,
  WALINDEX_PGSZ,
  type WalIndexHeader,
  WalIndexTable,
  walIndexSegmentOf,
} from '../../sqlite/wal-index.ts';
import type {WalCore} from './wal-core.ts';

/**
 * Makes the wal-index say what the write-ahead log says, as SQLite's `walIndexRecover` does, while readers
 * may be at work and the WRITE and CKPT locks are held. What is right already stays untouched: an app may
 * have had the write lock while no daemon was there, changed the mapped index, and failed to write the file.
 */
export function recoverWalIndex(core: WalCore): void {
  const published = readPublished(core);
  const found = readLog(core);
  core.nCkpt = found.nCkpt;
  copyIndex(core, found.segments);
  if (published !== undefined && isSame(published, found.header)) {
    // An empty log gets new salts: frames of a dead writer may stand in the file under those it has.
    if (published.mxFrame === 0)
      core.publish({
        ...found.header,
        iChange: published.iChange,
        nPage: published.nPage,
        pageSize: published.pageSize,
      });
    else core.adopt(published);
    core.table.cleanup(published.mxFrame);
    return;
  }
  const {info} = core;
  const isSameLog = published?.salt1 === found.header.salt1 && published.salt2 === found.header.salt2;
  const nBackfill = isSameLog && info.nBackfill <= found.header.mxFrame ? info.nBackfill : 0;
  core.publish({...found.header, iChange: ((published?.iChange ?? core.randomU32()) + 1) >>> 0});
  info.nBackfill = nBackfill;
  info.nBackfillAttempted = found.header.mxFrame;
  resetReadMarks(core);
}

function readPublished(core: WalCore): WalIndexHeader | undefined {
  try {
    return readWalIndexHeader(core.segment(0));
  } catch (error) {
    // Torn or never written: there is nothing to keep. A version that isn't ours is refused, as by SQLite.
    if (error instanceof SqliteFormatError && error.code !== 'WAL_INDEX_BAD_VERSION') return undefined;
    throw error;
  }
}

function isSame(a: WalIndexHeader, b: WalIndexHeader): boolean {
  if (a.mxFrame === 0 && b.mxFrame === 0) return true;
  return (
    a.mxFrame === b.mxFrame &&
    a.nPage === b.nPage &&
    a.pageSize === b.pageSize &&
    a.salt1 === b.salt1 &&
    a.salt2 === b.salt2 &&
    a.frameChecksum1 === b.frameChecksum1 &&
    a.frameChecksum2 === b.frameChecksum2 &&
    a.bigEndCksum === b.bigEndCksum
  );
}

/** Marks held by readers stay; the others are set as after SQLite's own recovery. */
function resetReadMarks(core: WalCore): void {
  const {info, locks, header} = core;
  info.setReadMark(0, 0);
  for (let i = 1; i <= 4; i++) {
    if (!locks.tryReadMark(i)) continue;
    info.setReadMark(i, i === 1 && header.mxFrame > 0 ? header.mxFrame : READMARK_NOT_USED);
    locks.dropReadMark(i);
  }
}

interface FoundLog {
  readonly header: WalIndexHeader;
  readonly nCkpt: number;
  /** The index as it must be, up to the last committed frame; its segment 0 has no header. */
  readonly segments: readonly Uint8Array[];
}

/** Reads the WAL to its last committed frame. */
function readLog(core: WalCore): FoundLog {
  const bytes = new Uint8Array(WAL_HEADER_SIZE);
  let stored: StoredWalHeader;
  try {
    stored = decodeWalHeader(bytes.subarray(0, core.files.disk.read(core.walFd, bytes, 0)));
  } catch (error) {
    if (!(error instanceof SqliteFormatError) || error.code === 'WAL_BAD_VERSION') throw error;
    return {header: emptyHeader(core, core.randomU32()), nCkpt: 0, segments: []};
  }
  const segments: Uint8Array[] = [];
  const table = new WalIndexTable(index => {
    segments[index] ??= new Uint8Array(WALINDEX_PGSZ);
    return segments[index];
  });
  const header = readFrames(core, stored, table);
  if (header === undefined) {
    // The salts of a log without a commit are not used again: its frames could be taken for new ones.
    const nCkpt = (stored.nCkpt + 1) >>> 0;
    return {header: emptyHeader(core, (stored.salt1 + 1) >>> 0), nCkpt, segments: []};
  }
  table.cleanup(header.mxFrame);
  segments.length = walIndexSegmentOf(header.mxFrame) + 1;
  return {header, nCkpt: stored.nCkpt, segments};
}

function readFrames(
  core: WalCore,
  stored: StoredWalHeader,
  table: WalIndexTable,
): WalIndexHeader | undefined {
  const {bigEndCksum, pageSize, salt1, salt2} = stored;
  const {disk} = core.files;
  const frameSize = WAL_FRAME_HEADER_SIZE + pageSize;
  const perChunk = Math.floor(core.files.buffer.length / frameSize);
  const chunk = core.files.buffer.subarray(0, perChunk * frameSize);
  const running = Uint32Array.of(stored.checksum1, stored.checksum2);
  const total = frameCount(disk.size(core.walFd), pageSize);
  let header: WalIndexHeader | undefined;
  for (let index = 0; index < total; index++) {
    const at = (index % perChunk) * frameSize;
    if (at === 0) chunk.fill(0, disk.read(core.walFd, chunk, frameOffset(index, pageSize)));
    if (!verifyWalFrame(chunk, at, stored, running)) break;
    const words = new DataView(chunk.buffer, chunk.byteOffset + at, 8);
    const mxFrame = index + 1;
    table.append(mxFrame, words.getUint32(0));
    const nPage = words.getUint32(4);
    if (nPage === 0) continue;
    const [frameChecksum1, frameChecksum2] = running;
    header = {
      iChange: 0,
      bigEndCksum,
      pageSize,
      mxFrame,
      nPage,
      frameChecksum1,
      frameChecksum2,
      salt1,
      salt2,
    };
  }
  return header;
}

function emptyHeader(core: WalCore, salt1: number): WalIndexHeader {
  return {
    iChange: 0,
    bigEndCksum: false,
    pageSize: 0,
    mxFrame: 0,
    nPage: 0,
    frameChecksum1: 0,
    frameChecksum2: 0,
    salt1,
    salt2: core.randomU32(),
  };
}

/** Copies what differs, word by word: readers may be looking up pages in the same memory. */
function copyIndex(core: WalCore, segments: readonly Uint8Array[]): void {
  for (const [index, segment] of segments.entries()) {
    const from = new Int32Array(segment.buffer);
    const shared = core.segment(index);
    const to = new Int32Array(shared.buffer, shared.byteOffset, from.length);
    for (let i = index === 0 ? WALINDEX_HDR_SIZE / 4 : 0; i < from.length; i++) {
      if (to[i] !== from[i]) Atomics.store(to, i, from[i]);
    }
  }
}
