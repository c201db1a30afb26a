import {constants} from 'node:fs';
import {join} from 'node:path';
import type {Disk} from '../lib/disk.ts';
import {formatTxid, parseTxid, type Txid} from '../ltx/position.ts';
import type {FilePool} from './file-pool.ts';
import {
  decodeIndexEntry,
  encodeIndexEntry,
  INDEX_ENTRY_SIZE,
  type LogEntry,
  RECORD_TRAILER_SIZE,
} from './log-entry.ts';

/** Files of the log's folder and how to reach them. */
export interface LogFolder {
  readonly disk: Disk;
  readonly pool: FilePool;
  readonly directory: string;
}

const SEGMENT_SUFFIX = '.ltxs';
const INDEX_SUFFIX = '.ltxi';

/** What the name of a file says that it is; `undefined` when it is neither a segment nor an index. */
export function parseSegmentName(
  name: string,
): {readonly kind: 'segment' | 'index'; readonly firstTxid: Txid} | undefined {
  if (!/^[0-9a-f]{16}\.ltx[si]$/.test(name)) return undefined;
  const firstTxid = parseTxid(name.slice(0, 16));
  if (firstTxid === 0n) return undefined;
  return {kind: name.endsWith(SEGMENT_SUFFIX) ? 'segment' : 'index', firstTxid};
}

/**
 * One segment file, of consecutive records with nothing between them, and its index: one entry per record, in the same
 * order. The index is derived: an entry counts only if it ends with the checksums that stand at that place in the segment.
 */
export class Segment {
  readonly firstTxid: Txid;
  readonly fileName: string;
  readonly path: string;
  readonly indexPath: string;
  /** Bytes of whole records. The file may be longer while a record is written, or after that failed. */
  size = 0;
  /** Number of whole records. */
  count = 0;
  last: LogEntry | undefined;
  /** Whether the files have been removed. */
  isGone = false;
  readonly #folder: LogFolder;
  readonly #entryBytes = new Uint8Array(INDEX_ENTRY_SIZE);
  readonly #trailer = new Uint8Array(RECORD_TRAILER_SIZE);
  readonly #trailerView = new DataView(this.#trailer.buffer);

  constructor(folder: LogFolder, firstTxid: Txid) {
    this.#folder = folder;
    this.firstTxid = firstTxid;
    this.fileName = `${formatTxid(firstTxid)}${SEGMENT_SUFFIX}`;
    this.path = join(folder.directory, this.fileName);
    this.indexPath = join(folder.directory, `${formatTxid(firstTxid)}${INDEX_SUFFIX}`);
  }

  /** Makes both files, empty, whatever was there under their names before. */
  create(): void {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC;
    const {pool} = this.#folder;
    pool.forget(this.path);
    pool.forget(this.indexPath);
    pool.open('log:segment-create', this.path, flags);
    pool.open('log:index-create', this.indexPath, flags);
  }

  /** Removes both files. */
  unlink(): void {
    const {disk, pool} = this.#folder;
    this.isGone = true;
    pool.forget(this.path);
    pool.forget(this.indexPath);
    unlinkIfThere(disk, 'log:index-unlink', this.indexPath);
    unlinkIfThere(disk, 'log:segment-unlink', this.path);
  }

  /** Descriptor of the segment file, for this moment. */
  fd(): number {
    return this.#folder.pool.open('log:segment-open', this.path);
  }

  /** Descriptor of the index file, which is made if it is missing. */
  indexFd(): number {
    return this.#folder.pool.open('log:index-open', this.indexPath, constants.O_RDWR | constants.O_CREAT);
  }

  write(bytes: Uint8Array, position: number): void {
    this.#folder.disk.write('log:record-write', this.fd(), bytes, position);
  }

  read(position: number, target: Uint8Array): number {
    return this.#folder.disk.read(this.fd(), target, position);
  }

  fileSize(): number {
    return this.#folder.disk.size(this.fd());
  }

  /** Number of whole entries that the index file has room for, right or wrong. */
  indexCount(): number {
    return Math.floor(this.#folder.disk.size(this.indexFd()) / INDEX_ENTRY_SIZE);
  }

  truncate(size: number): void {
    this.#folder.disk.truncate('log:segment-truncate', this.fd(), size);
  }

  truncateIndex(count: number): void {
    this.#folder.disk.truncate('log:index-truncate', this.indexFd(), count * INDEX_ENTRY_SIZE);
  }

  sync(): void {
    this.#folder.disk.sync('log:segment-sync', this.fd());
  }

  writeEntry(slot: number, entry: LogEntry): void {
    this.writeEntries(slot, encodeIndexEntry(entry, this.#entryBytes));
  }

  /** Writes encoded entries from `slot` on. */
  writeEntries(slot: number, bytes: Uint8Array): void {
    this.#folder.disk.write('log:index-write', this.indexFd(), bytes, slot * INDEX_ENTRY_SIZE);
  }

  /** The entry at `slot` of the index, if it is sound and was made for what stands in the segment now. */
  tryEntry(slot: number): LogEntry | undefined {
    const {disk} = this.#folder;
    const bytes = this.#entryBytes;
    if (disk.read(this.indexFd(), bytes, slot * INDEX_ENTRY_SIZE) !== INDEX_ENTRY_SIZE) return undefined;
    const entry = decodeIndexEntry(bytes, this.fileName);
    if (entry === undefined) return undefined;
    const trailerAt = entry.offset + entry.size - RECORD_TRAILER_SIZE;
    if (disk.read(this.fd(), this.#trailer, trailerAt) !== RECORD_TRAILER_SIZE) return undefined;
    if (this.#trailerView.getBigUint64(0) !== entry.postApplyChecksum) return undefined;
    return this.#trailerView.getBigUint64(8) === entry.fileChecksum ? entry : undefined;
  }

  /** Counts `entry`, whose record and index entry are written, as the segment's last. */
  add(entry: LogEntry): void {
    this.size = entry.offset + entry.size;
    this.count += 1;
    this.last = entry;
  }
}

function unlinkIfThere(disk: Disk, name: string, path: string): void {
  try {
    disk.unlink(name, path);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
}
