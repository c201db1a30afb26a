import {chmodSync, linkSync, mkdirSync, readdirSync, renameSync, symlinkSync, unlinkSync} from 'node:fs';
import {constants} from 'node:os';
import {RENAME_NOREPLACE} from '../../fuse/opcodes.ts';
import type {FuseRequest} from '../../fuse/request.ts';
import {makeNode} from '../../lib/libc-files.ts';
import {
  attributes,
  Errno,
  inodeOf,
  lstatBacking,
  type MountContext,
  passes,
  refuseVirtualName,
  relativeName,
} from './context.ts';
import {giveToCaller} from './file-operations.ts';
import type {FileName, Inode} from './inode-table.ts';
import {nameAt} from './lookup-operations.ts';

const {EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY} = constants.errno;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const SYMLINK_SIZE_MAX = 4095;

/** Makes a name; that it is there already because the request came twice is a success. */
function makeName(request: FuseRequest, make: () => void): void {
  try {
    make();
  } catch (error) {
    if (!request.isResent || (error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
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
  refuseVirtualName(context, parent, name);
  const path = context.inodes.childPath(parent, name);
  makeName(request, () => mkdirSync(path, 0o700));
  giveToCaller(context, path, parent, request);
  const above = lstatBacking(context.inodes.path(parent));
  chmodSync(path, (request.u32(0) & 0o7777) | (Number(above?.mode ?? 0n) & 0o2000));
  replyEntry(context, request, parent, name);
}

export function mknod(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 16);
  const mode = request.u32(0);
  refuseVirtualName(context, parent, name);
  if (!passes(context.hooks.beforeCreate(parent, name, request), request)) return;
  const path = context.inodes.childPath(parent, name);
  makeName(request, () => makeNode(path, mode, request.u32(4)));
  giveToCaller(context, path, parent, request);
  chmodSync(path, mode & 0o7777);
  const inode = replyEntry(context, request, parent, name);
  if ((mode & S_IFMT) === S_IFREG) context.hooks.created(inode);
}

export function symlink(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 0);
  const [, target] = request.names(0, 2);
  if (target === undefined) throw new Errno(EINVAL);
  if (target.length > SYMLINK_SIZE_MAX) throw new Errno(ENAMETOOLONG);
  refuseVirtualName(context, parent, name);
  const path = context.inodes.childPath(parent, name);
  makeName(request, () => symlinkSync(Buffer.from(target), path));
  giveToCaller(context, path, parent, request);
  replyEntry(context, request, parent, name);
}

export function link(context: MountContext, request: FuseRequest): void {
  const inode = inodeOf(context, request.u64(0));
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 8);
  refuseVirtualName(context, parent, name);
  if (!passes(context.hooks.beforeCreate(parent, name, request), request)) return;
  if (inode.isHidden) throw new Errno(ENOENT);
  makeName(request, () => linkSync(context.inodes.path(inode), context.inodes.childPath(parent, name)));
  replyEntry(context, request, parent, name);
}

export function unlink(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 0);
  const path = context.inodes.childPath(parent, name);
  const stats = lstatBacking(path);
  if (stats === undefined) {
    const isVirtual =
      context.virtualFiles.find(relativeName(context, parent, name), context.inodes) !== undefined;
    if (!isVirtual && !request.isResent) throw new Errno(ENOENT);
    context.replies.error(request.id, 0); // A virtual file goes with what it tells of; scripts that delete `app.db*` go on.
    return;
  }
  if (stats.isDirectory()) throw new Errno(EISDIR);
  const inode = context.inodes.put(parent, name, Number(stats.ino), false);
  if (!passes(context.hooks.beforeUnlink(inode, request), request)) return;
  removeName(context, inode, {parent, name}, Number(stats.nlink));
  context.replies.error(request.id, 0);
}

/** Takes a name away. With the last one the bytes stay, hidden, as long as the kernel knows the inode. */
function removeName(context: MountContext, inode: Inode, gone: FileName, linkCount: number): void {
  const {inodes} = context;
  const path = inodes.childPath(gone.parent, gone.name);
  const other = linkCount > 1 ? inodes.otherName(inode, gone.parent, gone.name) : undefined;
  if (other !== undefined) {
    unlinkSync(path);
    nameGone(context, inode, gone, other);
    return;
  }
  renameSync(path, inodes.hiddenPath(inode)); // Also where a hard link from outside the mount keeps the file.
  inodes.hide(inode);
  context.hooks.unlinked(inode, relativeName(context, gone.parent, gone.name));
}

/** A file with hard links has lost a name. If it was the one that it is known by, another takes its place. */
function nameGone(context: MountContext, inode: Inode, gone: FileName, other: FileName): void {
  if (!context.inodes.nameChanged(inode, gone, undefined)) return;
  context.inodes.move(inode, other.parent, other.name);
  context.hooks.renamed(
    inode,
    relativeName(context, gone.parent, gone.name),
    relativeName(context, other.parent, other.name),
  );
}

/** An empty folder is moved away, not removed: a new one could get its number while somebody still stands in it. */
export function rmdir(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 0);
  const path = context.inodes.childPath(parent, name);
  const stats = lstatBacking(path);
  if (stats === undefined && !request.isResent) throw new Errno(ENOENT);
  if (stats !== undefined)
    removeFolder(context, context.inodes.put(parent, name, Number(stats.ino), stats.isDirectory()), path);
  context.replies.error(request.id, 0);
}

function removeFolder(context: MountContext, inode: Inode, path: string): void {
  if (!inode.isDirectory) throw new Errno(ENOTDIR);
  if (readdirSync(path).length > 0) throw new Errno(ENOTEMPTY);
  renameSync(path, context.inodes.hiddenPath(inode));
  context.inodes.hide(inode);
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
  const [from, to] = [
    context.inodes.childPath(oldParent, oldName),
    context.inodes.childPath(newParent, newName),
  ];
  const [stats, replaced] = [lstatBacking(from), lstatBacking(to)];
  const [oldPath, newPath] = [
    relativeName(context, oldParent, oldName),
    relativeName(context, newParent, newName),
  ];
  if (stats === undefined) {
    if (!request.isResent || replaced === undefined) throw new Errno(ENOENT);
    const done = context.inodes.put(newParent, newName, Number(replaced.ino), replaced.isDirectory());
    context.hooks.renamed(done, oldPath, newPath); // The last daemon may have died before it had noted the new name.
    context.replies.error(request.id, 0);
    return;
  }
  if (replaced !== undefined && (flags & RENAME_NOREPLACE) !== 0) throw new Errno(EEXIST);
  if (replaced === undefined) refuseVirtualName(context, newParent, newName);
  const inode = context.inodes.put(oldParent, oldName, Number(stats.ino), stats.isDirectory());
  if (replaced?.ino !== stats.ino) {
    const target =
      replaced && context.inodes.put(newParent, newName, Number(replaced.ino), replaced.isDirectory());
    if (!passes(context.hooks.beforeRename(inode, target, newPath, request), request)) return;
    if (target === undefined) renameSync(from, to);
    else
      replace(
        context,
        from,
        {parent: newParent, name: newName},
        {inode: target, linkCount: Number(replaced?.nlink)},
      );
    const isFirst = context.inodes.nameChanged(
      inode,
      {parent: oldParent, name: oldName},
      {parent: newParent, name: newName},
    );
    if (isFirst) context.hooks.renamed(inode, oldPath, newPath);
  }
  context.replies.error(request.id, 0);
}

/** Renames over `target`, which lives on under its hidden name or another one. */
function replace(
  context: MountContext,
  from: string,
  to: FileName,
  target: {readonly inode: Inode; readonly linkCount: number},
): void {
  const {inode, linkCount} = target;
  const path = context.inodes.childPath(to.parent, to.name);
  if (inode.isDirectory) {
    replaceFolder(context, from, path, inode);
    return;
  }
  const other = linkCount > 1 ? context.inodes.otherName(inode, to.parent, to.name) : undefined;
  const hidden = context.inodes.hiddenPath(inode);
  if (other === undefined) linkHidden(path, hidden);
  try {
    renameSync(from, path);
  } catch (error) {
    if (other === undefined) unlinkSync(hidden);
    throw error;
  }
  if (other !== undefined) {
    nameGone(context, inode, to, other);
    return;
  }
  context.inodes.hide(inode);
  context.hooks.unlinked(inode, relativeName(context, to.parent, to.name));
}

function replaceFolder(context: MountContext, from: string, to: string, target: Inode): void {
  if (!lstatBacking(from)?.isDirectory()) throw new Errno(EISDIR);
  removeFolder(context, target, to);
  renameSync(from, to);
}

/** The file that a rename replaces gets its hidden name first, so that the rename itself stays atomic. */
function linkHidden(path: string, hidden: string): void {
  try {
    linkSync(path, hidden);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
