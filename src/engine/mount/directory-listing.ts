import {closeSync, constants, openSync} from 'node:fs';
import {type FolderEntry, readFolder} from '../../lib/libc-files.ts';
import type {Inode, InodeTable} from './inode-table.ts';
import {checkName} from './names.ts';

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

/** Listings that are kept, and their entries in all: several readers may go through large folders at once. */
const LISTINGS_MAX = 8;
const KEPT_ENTRIES_MAX = 200_000;

/**
 * Folders as READDIR wants them: sorted by a cookie made of the name, so that a reader goes on at the right
 * place while entries come and go, and after a restart. The last listings are kept, so that a large folder is
 * not read again for each piece of it.
 */
export class DirectoryListings {
  readonly #inodes: InodeTable;
  readonly #kept = new Map<number, readonly DirectoryEntry[]>();

  constructor(inodes: InodeTable) {
    this.#inodes = inodes;
  }

  read(inode: Inode, cookie: number): readonly DirectoryEntry[] {
    const kept = this.#kept.get(inode.nodeid);
    if (cookie !== 0 && kept !== undefined) return kept;
    const entries = this.#list(inode);
    this.#kept.delete(inode.nodeid);
    this.#kept.set(inode.nodeid, entries);
    let count = 0;
    for (const {length} of this.#kept.values()) count += length;
    for (const [nodeid, {length}] of this.#kept) {
      if (nodeid === inode.nodeid || (this.#kept.size <= LISTINGS_MAX && count <= KEPT_ENTRIES_MAX)) break;
      this.#kept.delete(nodeid);
      count -= length;
    }
    return entries;
  }

  #list(inode: Inode): readonly DirectoryEntry[] {
    const parent = inode.parent ?? inode;
    const fd = openSync(
      this.#inodes.path(inode),
      constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
    );
    try {
      return orderEntries(readFolder(fd), inode.nodeid, parent.nodeid);
    } finally {
      closeSync(fd);
    }
  }
}

/** The entries of a folder by growing cookie: "." and ".." first, no two the same. */
export function orderEntries(
  found: readonly FolderEntry[],
  nodeid: number,
  parentNodeid: number,
): readonly DirectoryEntry[] {
  const dots: readonly DirectoryEntry[] = [
    {name: Buffer.from('.'), ino: nodeid, type: DT_DIR, cookie: 1},
    {name: Buffer.from('..'), ino: parentNodeid, type: DT_DIR, cookie: 2},
  ];
  const others = found
    .filter(({name}) => checkName(name) === 0) // Without the dots, and without what the mount would refuse.
    .map(entry => ({...entry, cookie: cookieOf(entry.name)}))
    .sort((a, b) => a.cookie - b.cookie || Buffer.compare(a.name, b.name));
  let last = 2;
  for (const entry of others) {
    entry.cookie = Math.max(entry.cookie, last + 1);
    last = entry.cookie;
  }
  return [...dots, ...others];
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
