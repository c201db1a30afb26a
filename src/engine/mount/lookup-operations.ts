import {readlinkSync, statfsSync} from 'node:fs';
import {constants} from 'node:os';
import type {FuseRequest} from '../../fuse/request.ts';
import {attributes, Errno, inodeOf, lstatBacking, type MountContext, relativeName} from './context.ts';
import {packDirectory} from './directory-listing.ts';
import type {Inode} from './inode-table.ts';
import {checkName} from './names.ts';

const {ENOENT, ENOTDIR} = constants.errno;

/** The name in the body at `offset`, checked. */
export function nameAt(request: FuseRequest, offset: number, index = 0): string {
  const bytes = request.names(offset, index + 1)[index];
  if (bytes === undefined) throw new Errno(constants.errno.EINVAL);
  const errno = checkName(bytes);
  if (errno !== 0) throw new Errno(errno);
  return bytes.toString('utf8');
}

export function lookup(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, 0);
  const stats = lstatBacking(context.inodes.childPath(parent, name));
  if (stats === undefined) {
    lookupVirtual(context, request, parent, name);
    return;
  }
  const inode = context.inodes.put(parent, name, Number(stats.ino), stats.isDirectory());
  inode.lookups++;
  context.replies.entry(request.id, attributes(inode, stats));
}

function lookupVirtual(context: MountContext, request: FuseRequest, parent: Inode, name: string): void {
  const path = relativeName(context, parent, name);
  const nodeid = context.virtualFiles.find(path, context.inodes);
  const found =
    nodeid === undefined ? undefined : context.virtualFiles.attributes(nodeid, Date.now(), context.inodes);
  if (found !== undefined) context.replies.entry(request.id, found, 0);
  else if (path === '.primary' || path.endsWith('-pos'))
    context.replies.error(request.id, ENOENT); // May appear by itself: not to be remembered.
  else context.replies.negativeEntry(request.id);
}

export function forget(context: MountContext, request: FuseRequest): void {
  context.inodes.forget(request.nodeid, request.u64(0));
}

export function batchForget(context: MountContext, request: FuseRequest): void {
  const count = Math.min(request.u32(0), Math.floor((request.length - 48) / 16));
  for (let i = 0; i < count; i++) context.inodes.forget(request.u64(8 + i * 16), request.u64(16 + i * 16));
}

export function getattr(context: MountContext, request: FuseRequest): void {
  const {nodeid} = request;
  if (context.virtualFiles.isVirtual(nodeid)) {
    const found = context.virtualFiles.attributes(nodeid, Date.now(), context.inodes);
    if (found === undefined) throw new Errno(ENOENT);
    context.replies.attributes(request.id, found, 0);
    return;
  }
  replyAttributes(context, request, inodeOf(context, nodeid));
}

export function replyAttributes(context: MountContext, request: FuseRequest, inode: Inode): void {
  const stats = lstatBacking(context.inodes.path(inode));
  if (stats === undefined) throw new Errno(ENOENT);
  context.replies.attributes(request.id, attributes(inode, stats));
}

export function readlink(context: MountContext, request: FuseRequest): void {
  const target = readlinkSync(context.inodes.path(inodeOf(context, request.nodeid)), 'buffer');
  context.replies.data(request.id, target.copy(context.replies.dataBuffer));
}

export function statfs(context: MountContext, request: FuseRequest): void {
  context.replies.statfs(request.id, statfsSync(context.inodes.path(context.inodes.root)));
}

/** READDIR without an open folder: `offset` is a cookie that stays valid while entries come and go. */
export function readdir(context: MountContext, request: FuseRequest): void {
  const inode = inodeOf(context, request.nodeid);
  if (!inode.isDirectory) throw new Errno(ENOTDIR);
  const cookie = request.u64(8);
  const buffer = context.replies.dataBuffer.subarray(0, request.u32(16));
  context.replies.data(request.id, packDirectory(buffer, context.listings.read(inode, cookie), cookie));
}
