import {
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  unlinkSync,
} from 'node:fs';
import {constants as osConstants} from 'node:os';
import {join} from 'node:path';
import {FUSE_ROOT_ID} from '../../fuse/opcodes.ts';
import {assert} from '../../lib/assert.ts';
import {Errno} from './context.ts';
import {checkName, type FileRole, fileRole} from './names.ts';

/** A file or folder that the kernel knows, or has been told of by the last daemon. Its node ID is the backing file's inode number. */
export interface Inode {
  readonly nodeid: number;
  /** Undefined for the root and for what is hidden. */
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
  /** Lost its last name while the kernel knew it: lives on under the inode's number, which nobody else may get before FORGET. */
  isHidden: boolean;
  /** Size that a growing -wal was given ahead of its writer, or 0 when that has to be looked up. */
  storedAhead: number;
}

/** One of the names of a file that has several. */
export interface FileName {
  readonly parent: Inode;
  readonly name: string;
}

/** Node IDs above this are the virtual files'. */
export const BACKING_NODEID_MAX = 2 ** 51 - 1;
const NO_FD = -1;
/** Hard links whose names are remembered; more are searched for. */
const OTHER_NAMES_MAX = 16;

/**
 * The inodes that the kernel holds, by node ID. A new daemon starts with an empty table: an ID that it does
 * not know is found again by walking the backing folders.
 */
export class InodeTable {
  readonly root: Inode;
  readonly #filesDirectory: string;
  readonly #hiddenDirectory: string;
  /** Takes away a file that nobody knows any more; may do so later. */
  readonly #remove: (path: string) => void;
  /** Folders that were removed while the kernel knew them. */
  readonly #removedDirectory: string;
  /** Names of hard links besides the first, which the inode itself has. */
  readonly #otherNames = new Map<number, FileName[]>();
  readonly #byNodeid = new Map<number, Inode>();
  readonly #rootIno: number;

  constructor(
    filesDirectory: string,
    hiddenDirectory: string,
    remove: (path: string) => void = unlinkIfThere,
  ) {
    this.#remove = remove;
    this.#filesDirectory = filesDirectory;
    this.#hiddenDirectory = hiddenDirectory;
    this.#removedDirectory = `${hiddenDirectory}-folders`;
    mkdirSync(this.#removedDirectory, {recursive: true, mode: 0o700});
    for (const name of readdirSync(this.#removedDirectory)) rmdirSync(join(this.#removedDirectory, name));
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

  /** Inode number of the file at `path`, relative to the mount; its folders need not be known. */
  inoAt(path: string): number | undefined {
    return lstatSync(join(this.#filesDirectory, path), {throwIfNoEntry: false})?.ino;
  }

  /** The inode if it is in the table now: no search. */
  peek(nodeid: number): Inode | undefined {
    return this.#byNodeid.get(nodeid);
  }

  /**
   * Notes that `parent` holds the file `ino` under `name`. Of several hard links the first one seen stays the name
   * that the file, and a database in it, is known by.
   */
  put(parent: Inode, name: string, ino: number, isDirectory: boolean): Inode {
    assert(ino <= BACKING_NODEID_MAX, 'inode numbers of the data directory fit 51 bits');
    const nodeid = ino === this.#rootIno ? FUSE_ROOT_ID : ino;
    const known = this.#byNodeid.get(nodeid);
    if (known === undefined) {
      const inode = emptyInode(nodeid, parent, name, isDirectory);
      this.#byNodeid.set(nodeid, inode);
      return inode;
    }
    if (known.isHidden) this.#unhide(known);
    if (known === this.root) return known;
    if (isNameOf(known, parent, name))
      known.parent = parent; // It may have been forgotten and found again.
    else if (!isDirectory && this.#isAt(known, known)) this.#noteName(known, {parent, name});
    else this.move(known, parent, name);
    return known;
  }

  /** Another name of a file with hard links, besides `name` in `parent`. Where none is known, all folders are searched. */
  otherName(inode: Inode, parent: Inode, name: string): FileName | undefined {
    const known = this.#knownOtherName(inode, parent, name);
    if (known !== undefined) return known;
    this.#rescan();
    return this.#knownOtherName(inode, parent, name);
  }

  /** One name of a file with hard links has become another, or is gone. Returns whether it was the one that the file is known by. */
  nameChanged(inode: Inode, old: FileName, now: FileName | undefined): boolean {
    const others = (this.#otherNames.get(inode.nodeid) ?? []).filter(other => !isSameName(other, old));
    const isFirst = isNameOf(inode, old.parent, old.name);
    if (isFirst && now !== undefined) this.move(inode, now.parent, now.name);
    const rest =
      isFirst || now === undefined
        ? others.filter(other => !isNameOf(inode, other.parent, other.name))
        : [...others, now];
    if (rest.length > 0) this.#otherNames.set(inode.nodeid, rest);
    else this.#otherNames.delete(inode.nodeid);
    return isFirst;
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
    if (inode.parent === undefined) throw new Errno(osConstants.errno.ENOENT);
    return join(this.path(inode.parent), inode.name);
  }

  childPath(parent: Inode, name: string): string {
    return join(this.path(parent), name);
  }

  /** Where an unlinked file or a removed folder stays while somebody may use it. */
  hiddenPath(inode: Inode): string {
    return join(inode.isDirectory ? this.#removedDirectory : this.#hiddenDirectory, String(inode.nodeid));
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
      if (nodeid <= BACKING_NODEID_MAX && nodeid !== FUSE_ROOT_ID)
        this.#remove(join(this.#hiddenDirectory, String(nodeid)));
      return;
    }
    if (inode === this.root) return;
    inode.lookups -= count;
    if (inode.lookups > 0) return;
    this.#byNodeid.delete(nodeid);
    this.#otherNames.delete(nodeid);
    inode.opens = 0;
    this.#closeIdle(inode);
    if (inode.isHidden && inode.isDirectory) removeHidden(this.hiddenPath(inode), true);
    else if (inode.isHidden) this.#remove(this.hiddenPath(inode));
  }

  /** The last name is gone while the kernel knows the inode: the caller has moved it to `hiddenPath`. */
  hide(inode: Inode): void {
    inode.isHidden = true;
    inode.parent = undefined;
    this.#otherNames.delete(inode.nodeid);
  }

  #closeIdle(inode: Inode): void {
    if (inode.fd === NO_FD || inode.opens > 0 || inode.flushes > 0) return;
    closeSync(inode.fd);
    inode.fd = NO_FD;
  }

  /** A daemon died between linking the hidden name and the rename that was to replace the file: it still has its name. */
  #unhide(inode: Inode): void {
    removeHidden(this.hiddenPath(inode), inode.isDirectory);
    inode.isHidden = false;
  }

  #noteName(inode: Inode, found: FileName): void {
    const others = this.#otherNames.get(inode.nodeid) ?? [];
    if (others.length >= OTHER_NAMES_MAX || others.some(other => isSameName(other, found))) return;
    this.#otherNames.set(inode.nodeid, [...others, found]);
  }

  #knownOtherName(inode: Inode, parent: Inode, name: string): FileName | undefined {
    const names = [...(this.#otherNames.get(inode.nodeid) ?? [])];
    if (inode.parent !== undefined) names.unshift({parent: inode.parent, name: inode.name});
    return names.find(other => !isSameName(other, {parent, name}) && this.#isAt(inode, other));
  }

  #isAt(inode: Inode, {parent, name}: {readonly parent: Inode | undefined; readonly name: string}): boolean {
    return (
      parent !== undefined &&
      !parent.isHidden &&
      lstatSync(this.childPath(parent, name), {throwIfNoEntry: false})?.ino === inode.nodeid
    );
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
      for (const bytes of readdirSync(path, {encoding: 'buffer'})) {
        const name = bytes.toString('utf8');
        const stats =
          checkName(bytes) === 0 ? lstatSync(join(path, name), {throwIfNoEntry: false}) : undefined;
        if (stats === undefined) continue; // The mount refuses such names, so the kernel can't know the file.
        const inode = this.put(folder, name, stats.ino, stats.isDirectory());
        if (stats.isDirectory()) folders.push(inode);
      }
    }
  }
}

function isNameOf(inode: Inode, parent: Inode, name: string): boolean {
  return inode.parent?.nodeid === parent.nodeid && inode.name === name;
}

function isSameName(a: FileName, b: FileName): boolean {
  return a.parent.nodeid === b.parent.nodeid && a.name === b.name;
}

function unlinkIfThere(path: string): void {
  removeHidden(path, false);
}

function removeHidden(path: string, isDirectory: boolean): void {
  try {
    if (isDirectory) rmdirSync(path);
    else unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function emptyInode(nodeid: number, parent: Inode | undefined, name: string, isDirectory: boolean): Inode {
  const role = isDirectory ? 'main' : fileRole(name).role;
  return {
    nodeid,
    parent,
    name,
    role,
    isDirectory,
    lookups: 0,
    opens: 0,
    fd: NO_FD,
    flushes: 0,
    isHidden: false,
    storedAhead: 0,
  };
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
