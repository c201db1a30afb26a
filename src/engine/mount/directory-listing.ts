import {lstatSync, readdirSync} from 'node:fs';
import type {Inode, InodeTable} from './inode-table.ts';

export interface DirectoryEntry {
  readonly name: Buffer;
  readonly ino: number;
  /** DT_* of readdir(3): the file type bits of the mode, shifted. */
  readonly type: number;
  /** Where a reader goes on after this entry: grows along a listing, belongs to the name alone. */
  readonly cookie: number;
}

const DIRENT_HEADER_SIZE = 24; // struct fuse_dirent without its name
const DT_DIR = 4;

/**
 * Folders as READDIR wants them: sorted by a cookie made of the name, so that a reader goes on at the right
 * place while entries come and go, and after a restart. The last listing is kept, so that a large folder is
 * not read again for each piece of it.
 */
export class DirectoryListings {
  readonly #inodes: InodeTable;
  #nodeid = 0;
  #entries: readonly DirectoryEntry[] = [];

  constructor(inodes: InodeTable) {
    this.#inodes = inodes;
  }

  read(inode: Inode, cookie: number): readonly DirectoryEntry[] {
    if (cookie !== 0 && this.#nodeid === inode.nodeid) return this.#entries;
    const path = this.#inodes.path(inode);
    const parent = inode.parent ?? inode;
    const entries: DirectoryEntry[] = [
      {name: Buffer.from('.'), ino: inode.nodeid, type: DT_DIR, cookie: 1},
      {name: Buffer.from('..'), ino: parent.nodeid, type: DT_DIR, cookie: 2},
    ];
    for (const name of readdirSync(path)) {
      const stats = lstatSync(this.#inodes.childPath(inode, name), {throwIfNoEntry: false});
      if (stats === undefined) continue;
      const bytes = Buffer.from(name);
      entries.push({name: bytes, ino: stats.ino, type: (stats.mode >> 12) & 0xf, cookie: cookieOf(bytes)});
    }
    this.#entries = entries.sort((a, b) => a.cookie - b.cookie);
    this.#nodeid = inode.nodeid;
    return this.#entries;
  }
}

/** 52-bit hash of the name, above the cookies of "." and "..". */
function cookieOf(name: Buffer): number {
  let high = 0x811c9dc5;
  let low = 0x01000193;
  for (const byte of name) {
    high = Math.imul(high ^ byte, 0x01000193);
    low = Math.imul(low + byte, 0x85ebca6b) ^ (low >>> 13);
  }
  return 16 + ((high >>> 0) & 0xfffff) * 0x1_0000_0000 + (low >>> 0);
}

/** Puts the entries after `cookie` into `target` as struct fuse_dirent, as many as fit. Returns the bytes used. */
export function packDirectory(target: Buffer, entries: readonly DirectoryEntry[], cookie: number): number {
  let used = 0;
  for (let i = firstAfter(entries, cookie); i < entries.length; i++) {
    const entry = entries[i];
    const size = (DIRENT_HEADER_SIZE + entry.name.length + 7) & ~7;
    if (used + size > target.length) break;
    target.fill(0, used, used + size);
    target.writeBigUInt64LE(BigInt(entry.ino), used);
    target.writeBigUInt64LE(BigInt(entry.cookie), used + 8);
    target.writeUInt32LE(entry.name.length, used + 16);
    target.writeUInt32LE(entry.type, used + 20);
    entry.name.copy(target, used + DIRENT_HEADER_SIZE);
    used += size;
  }
  return used;
}

function firstAfter(entries: readonly DirectoryEntry[], cookie: number): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (entries[middle].cookie > cookie) high = middle;
    else low = middle + 1;
  }
  return low;
}
