import {
  chmodSync,
  closeSync,
  constants as fsConstants,
  fstatSync,
  ftruncateSync,
  lchownSync,
  openSync,
  readSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import {constants} from 'node:os';
import {
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_GID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FOPEN_NOFLUSH,
  FUSE_FSYNC_FDATASYNC,
} from '../../fuse/opcodes.ts';
import type {FuseRequest} from '../../fuse/request.ts';
import {
  fallocate as fallocateBacking,
  setTimes,
  type Timespec,
  UTIME_NOW,
  UTIME_OMIT,
} from '../../lib/libc-files.ts';
import {WAL_MAGIC} from '../../sqlite/wal.ts';
import {
  attributes,
  Errno,
  errnoOf,
  inodeOf,
  lstatBacking,
  type MountContext,
  offsetAt,
  passes,
  refuseVirtualName,
} from './context.ts';
import type {Inode} from './inode-table.ts';
import {nameAt, replyAttributes} from './lookup-operations.ts';
import {fileRole} from './names.ts';

const {EACCES, EBADF, EEXIST, EISDIR, EOPNOTSUPP, ESTALE} = constants.errno;
const O_ACCMODE = 3; // Mask of O_RDONLY, O_WRONLY and O_RDWR
/**
 * The kernel's cache stays, since only the daemon changes files behind it. Not flushing at close lets a killed daemon
 * end that has files of its own mount open and mapped: nobody would answer the write-back.
 */
const OPEN_FLAGS = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH;
const WRITE_IN_SIZE = 40; // sizeof(struct fuse_write_in)
const CREATE_IN_SIZE = 16; // sizeof(struct fuse_create_in)
const FALLOC_FL_KEEP_SIZE = 1; // fallocate(2)
const STORE_AHEAD_BYTES = 128 * 1024;
const STORE_AHEAD_MARGIN = 32 * 1024;
const MAGIC = Buffer.alloc(4);
const KERNEL_PAGE_SIZE = 4096;
const ZEROS = Buffer.alloc(STORE_AHEAD_BYTES + KERNEL_PAGE_SIZE);

export function open(context: MountContext, request: FuseRequest): void {
  const flags = request.u32(0);
  if (context.virtualFiles.isVirtual(request.nodeid)) {
    if ((flags & O_ACCMODE) !== fsConstants.O_RDONLY) throw new Errno(EACCES);
    context.replies.opened(request.id, FOPEN_DIRECT_IO);
    return;
  }
  const inode = inodeOf(context, request.nodeid);
  if (!passes(context.hooks.beforeOpen(inode, flags, request), request)) return;
  inode.opens++;
  context.hooks.opened(inode);
  context.replies.opened(request.id, OPEN_FLAGS);
}

export function create(context: MountContext, request: FuseRequest): void {
  const parent = inodeOf(context, request.nodeid);
  const name = nameAt(request, CREATE_IN_SIZE);
  refuseVirtualName(context, parent, name);
  if (!passes(context.hooks.beforeCreate(parent, name, request), request)) return;
  const path = context.inodes.childPath(parent, name);
  const flags = fsConstants.O_RDWR | fsConstants.O_CREAT | fsConstants.O_EXCL | fsConstants.O_NOFOLLOW;
  const mode = request.u32(4) & 0o7777;
  const isOurs = isOwnerOurs(context, parent, request);
  let fd = -1;
  try {
    fd = openSync(path, flags, isOurs ? mode : 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    // The kernel had looked before it asked, so somebody was faster. ESTALE makes it look again, and check permissions.
    if (!request.isResent) throw new Errno((request.u32(0) & fsConstants.O_EXCL) !== 0 ? EEXIST : ESTALE);
  }
  // Resent: the last daemon had created the file, but may have died before the file was its owner's.
  if (!isOurs || request.isResent) {
    giveToCaller(context, path, parent, request);
    chmodSync(path, mode);
  }
  const stats = lstatBacking(path);
  if (stats === undefined) throw new Errno(constants.errno.ENOENT);
  const inode = context.inodes.put(parent, name, Number(stats.ino), false);
  if (fd >= 0 && inode.fd < 0) inode.fd = fd;
  else if (fd >= 0) closeSync(fd);
  inode.lookups++;
  inode.opens++;
  context.hooks.created(inode);
  context.replies.created(request.id, attributes(inode, stats), OPEN_FLAGS);
}

/** Whether what we create belongs to who asked for it without being given to them. */
function isOwnerOurs(context: MountContext, parent: Inode, request: FuseRequest): boolean {
  if (request.uid !== process.geteuid?.() || request.gid !== process.getegid?.()) return false;
  const above = lstatBacking(context.inodes.path(parent));
  return above !== undefined && (Number(above.mode) & 0o2000) === 0;
}

/** The new file belongs to who asked for it; a set-group-ID folder passes its group on. */
export function giveToCaller(context: MountContext, path: string, parent: Inode, request: FuseRequest): void {
  const above = lstatBacking(context.inodes.path(parent));
  const inheritsGroup = above !== undefined && (Number(above.mode) & 0o2000) !== 0;
  if (process.getuid?.() !== 0) return; // Without root all files are ours: the kernel maps one user only.
  lchownSync(path, request.uid, inheritsGroup ? Number(above.gid) : request.gid);
}

export function read(context: MountContext, request: FuseRequest): void {
  const offset = offsetAt(request, 8);
  const target = context.replies.dataBuffer;
  const size = Math.min(request.u32(16), target.length);
  if (context.virtualFiles.isVirtual(request.nodeid)) {
    const text = Buffer.from(context.virtualFiles.text(request.nodeid, context.inodes) ?? '');
    context.replies.data(request.id, text.copy(target, 0, Math.min(offset, text.length), offset + size));
    return;
  }
  const fd = context.inodes.fd(inodeOf(context, request.nodeid));
  let count = 0;
  while (count < size) {
    const n = readSync(fd, target, count, size - count, offset + count);
    if (n === 0) break;
    count += n;
  }
  context.replies.data(request.id, count);
}

export function write(context: MountContext, request: FuseRequest): void {
  if (context.virtualFiles.isVirtual(request.nodeid)) throw new Errno(EBADF);
  const inode = inodeOf(context, request.nodeid);
  const offset = offsetAt(request, 8);
  const data = request.payload(WRITE_IN_SIZE);
  if (!passes(context.hooks.beforeWrite(inode, offset, data, request), request)) return;
  const fd = context.inodes.fd(inode);
  let count = 0;
  while (count < data.length) {
    try {
      count += writeSync(fd, data, count, data.length - count, offset + count);
    } catch (error) {
      if (count === 0) throw error;
      break; // A short write, as write(2) reports a disk that fills up.
    }
  }
  if (inode.role === 'wal') storeAhead(context, inode, offset + count);
  context.replies.written(request.id, count);
  context.hooks.wrote(inode, offset, count);
}

/**
 * Keeps zeros ahead of a growing -wal: a write to a page that the kernel's cache doesn't hold whole ends its request
 * there, so that each frame would come in three pieces instead of two. The backing file grows first, and really (as a
 * hole; zeros are no valid frame): were the kernel told a smaller size than it has itself, it would zero its pages from
 * there on, even one that a write is just being sent from. Nobody reads beyond the size that the kernel knows, so the
 * store can't wait for a page's lock.
 */
function storeAhead(context: MountContext, inode: Inode, end: number): void {
  if (inode.storedAhead - end >= STORE_AHEAD_MARGIN) return;
  const fd = context.inodes.fd(inode);
  if (!isWal(fd)) return;
  const {size} = fstatSync(fd);
  inode.storedAhead = size;
  if (size - end >= STORE_AHEAD_MARGIN) return;
  const from = alignUp(size);
  const to = from + STORE_AHEAD_BYTES;
  try {
    ftruncateSync(fd, to);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return; // Only a matter of speed: the write itself succeeded.
  }
  context.notifier.store(inode.nodeid, from, ZEROS.subarray(0, to - from));
  inode.storedAhead = to;
}

/** Whether the file is a WAL by its first bytes: another file with such a name must not grow. */
function isWal(fd: number): boolean {
  return readSync(fd, MAGIC, 0, 4, 0) === 4 && (MAGIC.readUInt32BE(0) & ~1) === WAL_MAGIC; // Lowest bit: byte order
}

function alignUp(offset: number): number {
  return Math.ceil(offset / KERNEL_PAGE_SIZE) * KERNEL_PAGE_SIZE;
}

export function release(context: MountContext, request: FuseRequest): void {
  if (!context.virtualFiles.isVirtual(request.nodeid)) {
    const inode = context.inodes.peek(request.nodeid);
    if (inode !== undefined) {
      context.hooks.released(inode);
      context.inodes.released(inode);
    }
  }
  context.replies.error(request.id, 0);
}

export function fsync(context: MountContext, request: FuseRequest): void {
  if (context.virtualFiles.isVirtual(request.nodeid)) {
    context.replies.error(request.id, 0);
    return;
  }
  const inode = inodeOf(context, request.nodeid);
  if (!passes(context.hooks.beforeSync(inode, request), request)) return;
  const isDataOnly = (request.u32(8) & FUSE_FSYNC_FDATASYNC) !== 0;
  inode.flushes++;
  context.flusher.flush({
    fd: context.inodes.fd(inode),
    isDataOnly,
    id: request.id,
    done: () => context.inodes.flushed(inode),
  });
}

export function fallocate(context: MountContext, request: FuseRequest): void {
  const inode = inodeOf(context, request.nodeid);
  const offset = offsetAt(request, 8);
  const length = offsetAt(request, 16);
  const mode = request.u32(24);
  // Holes and shifts change pages without a write that a transaction could be made of.
  if ((mode & ~FALLOC_FL_KEEP_SIZE) !== 0 && isOfDatabase(context, inode)) throw new Errno(EOPNOTSUPP);
  if (!passes(context.hooks.beforeWrite(inode, offset, Buffer.alloc(0), request), request)) return;
  fallocateBacking(context.inodes.fd(inode), mode, offset, length);
  context.replies.error(request.id, 0);
  context.hooks.wrote(inode, offset, length);
}

function isOfDatabase(context: MountContext, inode: Inode): boolean {
  if (inode.isHidden) return false;
  const path = context.inodes.relativePath(inode);
  const base = path.slice(0, path.length - inode.name.length) + fileRole(inode.name).base;
  return context.hooks.positionText(base) !== undefined;
}

export function setattr(context: MountContext, request: FuseRequest): void {
  if (context.virtualFiles.isVirtual(request.nodeid)) throw new Errno(EACCES);
  const inode = inodeOf(context, request.nodeid);
  const valid = request.u32(0);
  const path = context.inodes.path(inode);
  const size = (valid & FATTR_SIZE) === 0 ? 0 : offsetAt(request, 16);
  if ((valid & FATTR_SIZE) !== 0) {
    if (inode.isDirectory) throw new Errno(EISDIR);
    if (!passes(context.hooks.beforeTruncate(inode, size, request), request)) return;
    if (inode.fd >= 0) ftruncateSync(inode.fd, size);
    else truncateSync(path, size);
    inode.storedAhead = 0;
  }
  if ((valid & (FATTR_UID | FATTR_GID)) !== 0) {
    const unchanged = 0xffff_ffff; // (uid_t)-1 leaves the owner alone
    lchownSync(
      path,
      (valid & FATTR_UID) !== 0 ? request.u32(76) : unchanged,
      (valid & FATTR_GID) !== 0 ? request.u32(80) : unchanged,
    );
  }
  if ((valid & FATTR_MODE) !== 0) chmodSync(path, request.u32(68) & 0o7777);
  if ((valid & (FATTR_ATIME | FATTR_MTIME)) !== 0)
    setTimes(path, timeOf(request, valid, FATTR_ATIME), timeOf(request, valid, FATTR_MTIME));
  replyAttributes(context, request, inode);
  if ((valid & FATTR_SIZE) !== 0) context.hooks.truncated(inode, size);
}

/** Fields of struct fuse_setattr_in: atime at 32 and 56, mtime at 40 and 60. */
function timeOf(request: FuseRequest, valid: number, bit: number): Timespec {
  if ((valid & bit) === 0) return {seconds: 0n, nanoseconds: UTIME_OMIT};
  const isNow = bit === FATTR_ATIME ? FATTR_ATIME_NOW : FATTR_MTIME_NOW;
  if ((valid & isNow) !== 0) return {seconds: 0n, nanoseconds: UTIME_NOW};
  const [secondsAt, nanosecondsAt] = bit === FATTR_ATIME ? [32, 56] : [40, 60];
  return {seconds: request.i64(secondsAt), nanoseconds: BigInt(request.u32(nanosecondsAt))};
}
