import {closeSync, constants, lstatSync, openSync, readdirSync, unlinkSync} from 'node:fs';
import {join} from 'node:path';
import {FUSE_ROOT_ID} from '../../fuse/opcodes.ts';
import {assert} from '../../lib/assert.ts';
import {type FileRole, fileRole} from './names.ts';

/** A file or folder that the kernel knows, or has been told of by the last daemon. Its node ID is the backing file's inode number. */
export interface Inode {
  readonly nodeid: number;
  /** Undefined for the root, for a hidden file, and where only another hard link's name was removed. */
  parent: Inode | undefined;
  name: string;
  role: FileRole;
  readonly isDirectory: boolean;
  /** References that the kernel holds; approximate after a restart, when earlier ones weren't seen. */
  lookups: number;
  /** Open handles; approximate in the same way. */
  opens: number;
  /** Descriptor of the backing file, opened at first use. */
  fd: number;
  /** Flushes under way on `fd`, which must not be closed meanwhile. */
  flushes: number;
  /** Unlinked while the kernel knew it: its bytes live on under the inode's number until FORGET. */
  isHidden: boolean;
  /** How far the kernel's page cache was filled ahead of a growing -wal, 0 if not. */
  storedAhead: number;
}

/** Node IDs above this are the virtual files'. */
export const BACKING_NODEID_MAX = 2 ** 51 - 1;
const NO_FD = -1;

/**
 * The inodes that the kernel holds, by node ID. A new daemon starts with an empty table: an ID that it does
 * not know is found again by walking the backing folders.
 */
export class InodeTable {
  readonly root: Inode;
  readonly #filesDirectory: string;
  readonly #hiddenDirectory: string;
  readonly #byNodeid = new Map<number, Inode>();
  readonly #rootIno: number;

  constructor(filesDirectory: string, hiddenDirectory: string) {
    this.#filesDirectory = filesDirectory;
    this.#hiddenDirectory = hiddenDirectory;
    this.#rootIno = lstatSync(filesDirectory).ino;
    this.root = {...emptyInode(FUSE_ROOT_ID, undefined, '', true), lookups: 1};
    this.#byNodeid.set(FUSE_ROOT_ID, this.root);
  }

  /** The inode with this node ID, or undefined when no file has that number any more. */
  get(nodeid: number): Inode | undefined {
    const known = this.#byNodeid.get(nodeid);
    if (known !== undefined) return known;
    if (nodeid > BACKING_NODEID_MAX) return undefined;
    this.#rescan();
    return this.#byNodeid.get(nodeid);
  }

  /** The inode if it is in the table now: no search. */
  peek(nodeid: number): Inode | undefined {
    return this.#byNodeid.get(nodeid);
  }

  /** Notes that `parent` holds the file `ino` under `name`. */
  put(parent: Inode, name: string, ino: number, isDirectory: boolean): Inode {
    assert(ino <= BACKING_NODEID_MAX, 'inode numbers of the data directory fit 51 bits');
    const nodeid = ino === this.#rootIno ? FUSE_ROOT_ID : ino;
    const known = this.#byNodeid.get(nodeid);
    if (known === undefined) {
      const inode = emptyInode(nodeid, parent, name, isDirectory);
      this.#byNodeid.set(nodeid, inode);
      return inode;
    }
    if (!known.isHidden) this.move(known, parent, name);
    return known;
  }

  move(inode: Inode, parent: Inode | undefined, name: string): void {
    inode.parent = parent;
    inode.name = name;
    inode.role = inode.isDirectory ? 'main' : fileRole(name).role;
  }

  /** Path of the backing file. */
  path(inode: Inode): string {
    if (inode.nodeid === FUSE_ROOT_ID) return this.#filesDirectory;
    if (inode.isHidden) return this.hiddenPath(inode);
    if (inode.parent === undefined) this.#rescan();
    assert(inode.parent !== undefined, 'a file that is not hidden has a name');
    return join(this.path(inode.parent), inode.name);
  }

  childPath(parent: Inode, name: string): string {
    return join(this.path(parent), name);
  }

  /** Where the bytes of an unlinked file stay while somebody may use them. */
  hiddenPath(inode: Inode): string {
    return join(this.#hiddenDirectory, String(inode.nodeid));
  }

  /** Path relative to the mount: the name of a database. */
  relativePath(inode: Inode): string {
    if (inode.parent === undefined) return '';
    const above = this.relativePath(inode.parent);
    return above === '' ? inode.name : `${above}/${inode.name}`;
  }

  /** Descriptor of the backing file: read-write where the file's mode allows that to us, else read-only. */
  fd(inode: Inode): number {
    if (inode.fd === NO_FD) inode.fd = openBacking(this.path(inode), inode.isDirectory);
    return inode.fd;
  }

  released(inode: Inode): void {
    inode.opens--;
    this.#closeIdle(inode);
  }

  flushed(inode: Inode): void {
    inode.flushes--;
    this.#closeIdle(inode);
  }

  /** FORGET: the kernel dropped `count` references. */
  forget(nodeid: number, count: number): void {
    const inode = this.#byNodeid.get(nodeid);
    if (inode === undefined) {
      if (nodeid <= BACKING_NODEID_MAX && nodeid !== FUSE_ROOT_ID) this.#removeHidden(join(this.#hiddenDirectory, String(nodeid)));
      return;
    }
    if (inode === this.root) return;
    inode.lookups -= count;
    if (inode.lookups > 0) return;
    this.#byNodeid.delete(nodeid);
    inode.opens = 0;
    this.#closeIdle(inode);
    if (inode.isHidden) this.#removeHidden(this.hiddenPath(inode));
  }

  /** The file lost its name while the kernel knows it: the caller has moved its bytes to `hiddenPath`. */
  hide(inode: Inode): void {
    inode.isHidden = true;
    inode.parent = undefined;
  }

  #closeIdle(inode: Inode): void {
    if (inode.fd === NO_FD || inode.opens > 0 || inode.flushes > 0) return;
    closeSync(inode.fd);
    inode.fd = NO_FD;
  }

  #removeHidden(path: string): void {
    try {
      unlinkSync(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  /** Finds every name again, also of the hidden files. */
  #rescan(): void {
    for (const name of readdirSync(this.#hiddenDirectory)) {
      const inode = this.#byNodeid.get(Number(name)) ?? emptyInode(Number(name), undefined, name, false);
      inode.isHidden = true;
      this.#byNodeid.set(inode.nodeid, inode);
    }
    const folders: Inode[] = [this.root];
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
      const path = this.path(folder);
      for (const entry of readdirSync(path, {withFileTypes: true})) {
        const inode = this.put(folder, entry.name, lstatSync(join(path, entry.name)).ino, entry.isDirectory());
        if (entry.isDirectory()) folders.push(inode);
      }
    }
  }
}

function emptyInode(nodeid: number, parent: Inode | undefined, name: string, isDirectory: boolean): Inode {
  const role = isDirectory ? 'main' : fileRole(name).role;
  return {nodeid, parent, name, role, isDirectory, lookups: 0, opens: 0, fd: NO_FD, flushes: 0, isHidden: false, storedAhead: 0};
}

function openBacking(path: string, isDirectory: boolean): number {
  if (isDirectory) return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    return openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
  } catch (error) {
    const {code} = error as NodeJS.ErrnoException;
    if (code !== 'EACCES' && code !== 'EPERM' && code !== 'EROFS' && code !== 'ETXTBSY') throw error;
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  }
}
