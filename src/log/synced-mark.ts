import {constants} from 'node:fs';
import {join} from 'node:path';
import {crc32} from 'node:zlib';
import type {Disk} from '../lib/disk.ts';
import type {Txid} from '../ltx/position.ts';
import type {FilePool} from './file-pool.ts';

// Mark file, big-endian: 0 magic "FRLGMRK1" | 8 txid u64 | 16 crc32 u32 of the 16 bytes before it
export const MARK_FILE_SIZE = 20;
const MAGIC = 0x4652_4c47_4d52_4b31n;

export const MARK_NAME = 'synced';

/** The bytes of the mark file. */
export function encodeSyncedMark(txid: Txid): Uint8Array {
  const bytes = new Uint8Array(MARK_FILE_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC);
  view.setBigUint64(8, txid);
  view.setUint32(16, crc32(bytes.subarray(0, 16)));
  return bytes;
}

/** The mark in `bytes`; `undefined` when they are none, which only means that more must be verified. */
export function decodeSyncedMark(bytes: Uint8Array): Txid | undefined {
  if (bytes.length !== MARK_FILE_SIZE) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, MARK_FILE_SIZE);
  if (view.getBigUint64(0) !== MAGIC) return undefined;
  if (view.getUint32(16) !== crc32(bytes.subarray(0, 16))) return undefined;
  return view.getBigUint64(8) as Txid;
}

/**
 * A hint on disk: every record up to this transaction is durable. It is written after the sync that made them so,
 * and is itself not synced, so after a loss of power it may be too low, never too high. When records are
 * cut, `lower` goes first and is durable.
 */
export class SyncedMark {
  readonly #disk: Disk;
  readonly #pool: FilePool;
  readonly #path: string;

  constructor(disk: Disk, pool: FilePool, directory: string) {
    this.#disk = disk;
    this.#pool = pool;
    this.#path = join(directory, MARK_NAME);
  }

  read(): Txid | undefined {
    const bytes = new Uint8Array(MARK_FILE_SIZE + 1);
    return decodeSyncedMark(bytes.subarray(0, this.#disk.read(this.#open(), bytes, 0)));
  }

  raise(txid: Txid): void {
    this.#disk.write('log:mark-write', this.#open(), encodeSyncedMark(txid), 0);
  }

  lower(txid: Txid): void {
    this.raise(txid);
    this.#disk.sync('log:mark-sync', this.#open());
  }

  #open(): number {
    return this.#pool.open('log:mark-open', this.#path, constants.O_RDWR | constants.O_CREAT);
  }
}
