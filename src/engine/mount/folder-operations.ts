import {chmodSync, linkSync, mkdirSync, renameSync, rmdirSync, symlinkSync, unlinkSync} from 'node:fs';
import {constants} from 'node:os';
import {RENAME_NOREPLACE} from '../../fuse/opcodes.ts';
import type {FuseRequest} from '../../fuse/request.ts';
import {makeNode} from '../../lib/libc-files.ts';
import {attributes, Errno, inodeOf, lstatBacking, type MountContext, passes} from './context.ts';
import type {Inode} from './inode-table.ts';
import {giveToCaller} from './file-operations.ts';
import {nameAt} from './lookup-operations.ts';

const {EEXIST, EINVAL, ENAMETOOLONG, ENOENT, EPERM} = constants.errno;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const SYMLINK_SIZE_MAX = 4095;

/** Does `change`; what is already so because a request came twice is a success. */
function unlessResent(request: FuseRequest, code: 'EEXIST' | 'ENOENT', change: () => void): boolean {
  try {
    change();
    return true;
  } catch (error) {
    if (!request.isResent || (error as NodeJS.ErrnoException).code !== code) throw error;
    return false;
  }
}

function replyEntry(context: MountContext, request: FuseRequest, parent: Inode, name: string): Inode {
  const stats = lstatBacking(context.inodes.childPath(parent, name));
  if (stats === undefined) throw new Errno(ENOENT);
  const inode = context.inodes.put(parent, name, Number(stats.ino), stats.isDirectory());
  inode.lookups++;
  context.replies.entry(request.id, attributes(inode, stats));
  return inode;
}

export function mkdir(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 8);
  const path = context.inodes.childPath(parent, name);
  const isNew = unlessResent(request, 'EEXIST', () => mkdirSync(path, 0o700));
  if (isNew) {
    giveToCaller(context, path, parent, request);
    const above = lstatBacking(context.inodes.path(parent));
    chmodSync(path, (request.u32(0) & 0o7777) | (Number(above?.mode ?? 0n) & 0o2000));
  }
  replyEntry(context, request, parent, name);
}

export function mknod(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 16);
  const mode = request.u32(0);
  if (!passes(context.hooks.beforeCreate(parent, name, request), request)) return;
  const path = context.inodes.childPath(parent, name);
  const isNew = unlessResent(request, 'EEXIST', () => makeNode(path, mode, request.u32(4)));
  if (isNew) {
    giveToCaller(context, path, parent, request);
    chmodSync(path, mode & 0o7777);
  }
  const inode = replyEntry(context, request, parent, name);
  if ((mode & S_IFMT) === S_IFREG) context.hooks.created(inode);
}

export function symlink(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 0);
  const [, target] = request.names(0, 2);
  if (target === undefined) throw new Errno(EINVAL);
  if (target.length > SYMLINK_SIZE_MAX) throw new Errno(ENAMETOOLONG);
  const path = context.inodes.childPath(parent, name);
  const isNew = unlessResent(request, 'EEXIST', () => symlinkSync(Buffer.from(target), path));
  if (isNew) giveToCaller(context, path, parent, request);
  replyEntry(context, request, parent, name);
}

export function link(context: MountContext, request: FuseRequest): void {
  const inode = inodeOf(context, request.u64(0));
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 8);
  if (!passes(context.hooks.beforeCreate(parent, name, request), request)) return;
  if (inode.isHidden) throw new Errno(ENOENT);
  const old = {parent: inode.parent, name: inode.name};
  unlessResent(request, 'EEXIST', () => linkSync(context.inodes.path(inode), context.inodes.childPath(parent, name)));
  replyEntry(context, request, parent, name);
  context.inodes.move(inode, old.parent, old.name); // The first name stays the one that a database is known by.
}

export function unlink(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 0);
  const path = context.inodes.childPath(parent, name);
  const stats = lstatBacking(path);
  if (stats === undefined) {
    const isVirtual = context.virtualFiles.find(relativeName(context, parent, name)) !== undefined;
    if (!isVirtual && !request.isResent) throw new Errno(ENOENT);
    context.replies.error(request.id, 0); // A virtual file goes with what it tells of; scripts that delete `app.db*` go on.
    return;
  }
  if (stats.isDirectory()) throw new Errno(EPERM);
  const inode = context.inodes.put(parent, name, Number(stats.ino), false);
  if (!passes(context.hooks.beforeUnlink(inode, request), request)) return;
  const relative = relativeName(context, parent, name);
  removeName(context, inode, path, Number(stats.nlink));
  context.hooks.unlinked(inode, relative);
  context.replies.error(request.id, 0);
}

function relativeName(context: MountContext, parent: Inode, name: string): string {
  const above = context.inodes.relativePath(parent);
  return above === '' ? name : `${above}/${name}`;
}

/** Takes the name away; the bytes stay, hidden, as long as the kernel knows the inode. */
function removeName(context: MountContext, inode: Inode, path: string, linkCount: number): void {
  if (linkCount > 1) {
    unlinkSync(path);
    inode.parent = undefined; // Another name is found when it is needed.
    return;
  }
  renameSync(path, context.inodes.hiddenPath(inode));
  context.inodes.hide(inode);
}

export function rmdir(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const path = context.inodes.childPath(parent, nameAt(request, 0));
  unlessResent(request, 'ENOENT', () => rmdirSync(path));
  context.replies.error(request.id, 0);
}

export function rename(context: MountContext, request: FuseRequest): void {
  renameTo(context, request, 8, 0);
}

export function rename2(context: MountContext, request: FuseRequest): void {
  renameTo(context, request, 16, request.u32(8));
}

function renameTo(context: MountContext, request: FuseRequest, namesOffset: number, flags: number): void {
  if ((flags & ~RENAME_NOREPLACE) !== 0) throw new Errno(EINVAL); // RENAME_EXCHANGE, RENAME_WHITEOUT
  const oldParent = inodeOf(context, request.nodeid);
  const newParent = inodeOf(context, request.u64(0));
  const oldName = nameAt(request, namesOffset, 0);
  const newName = nameAt(request, namesOffset, 1);
  const [from, to] = [context.inodes.childPath(oldParent, oldName), context.inodes.childPath(newParent, newName)];
  const [stats, replaced] = [lstatBacking(from), lstatBacking(to)];
  if (stats === undefined) {
    if (!request.isResent || replaced === undefined) throw new Errno(ENOENT);
    context.replies.error(request.id, 0);
    return;
  }
  if (replaced !== undefined && (flags & RENAME_NOREPLACE) !== 0) throw new Errno(EEXIST);
  const inode = context.inodes.put(oldParent, oldName, Number(stats.ino), stats.isDirectory());
  const target = replaced === undefined || replaced.ino === stats.ino ? undefined : context.inodes.put(newParent, newName, Number(replaced.ino), replaced.isDirectory());
  const [oldPath, newPath] = [relativeName(context, oldParent, oldName), relativeName(context, newParent, newName)];
  if (!passes(context.hooks.beforeRename(inode, target, newPath, request), request)) return;
  const isKept = target !== undefined && !target.isDirectory && replaced?.nlink === 1n;
  if (isKept) linkHidden(to, context.inodes.hiddenPath(target));
  renameSync(from, to);
  if (isKept) context.inodes.hide(target);
  else if (target !== undefined) target.parent = undefined;
  if (target !== undefined) context.hooks.unlinked(target, newPath);
  if (replaced?.ino !== stats.ino) context.inodes.move(inode, newParent, newName);
  context.hooks.renamed(inode, oldPath, newPath);
  context.replies.error(request.id, 0);
}

/** The file that a rename replaces lives on under its hidden name: linked there first, so that the rename itself stays atomic. */
function linkHidden(path: string, hidden: string): void {
  try {
    linkSync(path, hidden);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
