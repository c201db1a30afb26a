import {type BigIntStats, type StatsFs, writeSync} from 'node:fs';
import {MAX_WRITE} from './init.ts';
import type {RequestId} from './request.ts';

/** sizeof(struct fuse_out_header). */
export const OUT_HEADER_SIZE = 16;
const ATTR_SIZE = 88;
const ENTRY_OUT_SIZE = 40 + ATTR_SIZE;

/** How long the kernel may trust a name or an attribute without asking: for ever, since the daemon tells it of changes. */
export const VALID_SECONDS = 86_400;

/** What struct fuse_attr holds; sizes in bytes, times in nanoseconds since 1970. */
export interface FuseAttributes {
  readonly nodeid: number;
  readonly size: number;
  readonly blocks: number;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly blksize: number;
}

export function attributesOf(nodeid: number, stats: BigIntStats): FuseAttributes {
  return {
    nodeid,
    size: Number(stats.size),
    blocks: Number(stats.blocks),
    atimeNs: stats.atimeNs,
    mtimeNs: stats.mtimeNs,
    ctimeNs: stats.ctimeNs,
    mode: Number(stats.mode),
    nlink: Number(stats.nlink),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    rdev: Number(stats.rdev),
    blksize: Number(stats.blksize),
  };
}

/**
 * Answers requests: one write(2) each on the connection's descriptor, from any thread. An answer to a
 * request that the kernel has given up (ENOENT) is dropped. One buffer serves all answers.
 */
export class FuseReplies {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafeSlow(OUT_HEADER_SIZE + MAX_WRITE);

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Where to put the data of a READ before `data()` sends it. */
  get dataBuffer(): Buffer {
    return this.#buffer.subarray(OUT_HEADER_SIZE);
  }

  /** `errno` is positive, 0 for plain success. */
  error(id: RequestId, errno: number): void {
    this.#send(id, 0, errno);
  }

  /** Sends the first `size` bytes of `dataBuffer`. */
  data(id: RequestId, size: number): void {
    this.#send(id, size, 0);
  }

  /** struct fuse_write_out. */
  written(id: RequestId, size: number): void {
    this.#buffer.writeUInt32LE(size, OUT_HEADER_SIZE);
    this.#buffer.writeUInt32LE(0, OUT_HEADER_SIZE + 4);
    this.#send(id, 8, 0);
  }

  /** struct fuse_attr_out. `validSeconds` 0 makes the kernel ask each time. */
  attributes(id: RequestId, attributes: FuseAttributes, validSeconds = VALID_SECONDS): void {
    this.#u64(0, validSeconds);
    this.#u64(8, 0); // attr_valid_nsec, dummy
    this.#attributes(16, attributes);
    this.#send(id, 16 + ATTR_SIZE, 0);
  }

  /** struct fuse_entry_out. */
  entry(id: RequestId, attributes: FuseAttributes, validSeconds = VALID_SECONDS): void {
    this.#entry(attributes, validSeconds);
    this.#send(id, ENTRY_OUT_SIZE, 0);
  }

  /** struct fuse_entry_out with node ID 0: the kernel remembers that the name does not exist. */
  negativeEntry(id: RequestId): void {
    this.#buffer.fill(0, OUT_HEADER_SIZE, OUT_HEADER_SIZE + ENTRY_OUT_SIZE);
    this.#u64(16, VALID_SECONDS);
    this.#send(id, ENTRY_OUT_SIZE, 0);
  }

  /** struct fuse_open_out. File handles carry no state, so that a new daemon understands them. */
  opened(id: RequestId, openFlags: number): void {
    this.#open(0, openFlags);
    this.#send(id, 16, 0);
  }

  /** CREATE's answer: struct fuse_entry_out, then struct fuse_open_out. */
  created(id: RequestId, attributes: FuseAttributes, openFlags: number): void {
    this.#entry(attributes, VALID_SECONDS);
    this.#open(ENTRY_OUT_SIZE, openFlags);
    this.#send(id, ENTRY_OUT_SIZE + 16, 0);
  }

  /** struct fuse_statfs_out. */
  statfs(id: RequestId, stats: StatsFs): void {
    for (const [index, value] of [
      stats.blocks,
      stats.bfree,
      stats.bavail,
      stats.files,
      stats.ffree,
    ].entries())
      this.#u64(8 * index, value);
    const at = OUT_HEADER_SIZE + 40;
    this.#buffer.fill(0, at, at + 40);
    this.#buffer.writeUInt32LE(stats.bsize, at);
    this.#buffer.writeUInt32LE(255, at + 4); // namelen
    this.#buffer.writeUInt32LE(stats.bsize, at + 8); // frsize
    this.#send(id, 80, 0);
  }

  #entry(attributes: FuseAttributes, validSeconds: number): void {
    this.#u64(0, attributes.nodeid);
    this.#u64(8, 0); // generation: a node ID is not used again while the kernel knows it
    this.#u64(16, validSeconds);
    this.#u64(24, validSeconds);
    this.#u64(32, 0); // nanoseconds of both
    this.#attributes(40, attributes);
  }

  #open(offset: number, openFlags: number): void {
    this.#u64(offset, 0); // fh
    this.#u64(offset + 8, openFlags);
  }

  #attributes(offset: number, attributes: FuseAttributes): void {
    const {atimeNs, mtimeNs, ctimeNs} = attributes;
    this.#u64(offset, attributes.nodeid);
    this.#u64(offset + 8, attributes.size);
    this.#u64(offset + 16, attributes.blocks);
    let at = OUT_HEADER_SIZE + offset + 24;
    for (const time of [atimeNs, mtimeNs, ctimeNs]) at = this.#buffer.writeBigInt64LE(floorSeconds(time), at);
    for (const time of [atimeNs, mtimeNs, ctimeNs])
      at = this.#buffer.writeUInt32LE(Number(time - floorSeconds(time) * 1_000_000_000n), at);
    const {mode, nlink, uid, gid, rdev, blksize} = attributes;
    for (const value of [mode, nlink, uid, gid, rdev, blksize, 0]) at = this.#buffer.writeUInt32LE(value, at);
  }

  #u64(offset: number, value: number): void {
    const at = OUT_HEADER_SIZE + offset;
    this.#buffer.writeUInt32LE(value % 0x1_0000_0000, at);
    this.#buffer.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
  }

  #send(id: RequestId, bodySize: number, errno: number): void {
    const buffer = this.#buffer;
    buffer.writeUInt32LE(OUT_HEADER_SIZE + bodySize, 0);
    buffer.writeInt32LE(-errno, 4);
    buffer.writeUInt32LE(id.low, 8);
    buffer.writeUInt32LE(id.high, 12);
    try {
      writeSync(this.#fd, buffer, 0, OUT_HEADER_SIZE + bodySize);
    } catch (error) {
      ignoreGone(error);
    }
  }
}

/** Rethrows unless the kernel has given the request, or the whole connection, up. */
export function ignoreGone(error: unknown): void {
  const {code} = error as NodeJS.ErrnoException;
  if (code !== 'ENOENT' && code !== 'ENODEV' && code !== 'EPERM' && code !== 'ECONNABORTED') throw error;
}

function floorSeconds(ns: bigint): bigint {
  const seconds = ns / 1_000_000_000n;
  return ns < seconds * 1_000_000_000n ? seconds - 1n : seconds;
}
