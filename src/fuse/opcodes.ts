/** Request codes: `enum fuse_opcode` of the kernel's include/uapi/linux/fuse.h. */
export const FUSE_LOOKUP = 1;
export const FUSE_FORGET = 2;
export const FUSE_GETATTR = 3;
export const FUSE_SETATTR = 4;
export const FUSE_READLINK = 5;
export const FUSE_SYMLINK = 6;
export const FUSE_MKNOD = 8;
export const FUSE_MKDIR = 9;
export const FUSE_UNLINK = 10;
export const FUSE_RMDIR = 11;
export const FUSE_RENAME = 12;
export const FUSE_LINK = 13;
export const FUSE_OPEN = 14;
export const FUSE_READ = 15;
export const FUSE_WRITE = 16;
export const FUSE_STATFS = 17;
export const FUSE_RELEASE = 18;
export const FUSE_FSYNC = 20;
export const FUSE_INIT = 26;
export const FUSE_READDIR = 28;
export const FUSE_FSYNCDIR = 30;
export const FUSE_CREATE = 35;
export const FUSE_INTERRUPT = 36;
export const FUSE_DESTROY = 38;
export const FUSE_NOTIFY_REPLY = 41;
export const FUSE_BATCH_FORGET = 42;
export const FUSE_FALLOCATE = 43;
export const FUSE_RENAME2 = 45;

/** Notification codes: `enum fuse_notify_code`; they travel in the `error` field of a header whose `unique` is 0. */
export const FUSE_NOTIFY_INVAL_INODE = 2;
export const FUSE_NOTIFY_INVAL_ENTRY = 3;
export const FUSE_NOTIFY_STORE = 4;
export const FUSE_NOTIFY_DELETE = 6;
/** Linux 6.9 and later: asks for the requests that were read and never answered. */
export const FUSE_NOTIFY_RESEND = 7;

/** `nodeid` of the mount's root folder. */
export const FUSE_ROOT_ID = 1;

/** `struct fuse_setattr_in.valid`. */
export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_ATIME = 1 << 4;
export const FATTR_MTIME = 1 << 5;
export const FATTR_ATIME_NOW = 1 << 7;
export const FATTR_MTIME_NOW = 1 << 8;

/** `struct fuse_open_out.open_flags`. */
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
/** Closing a file does not write its dirty pages back first (Linux 5.16; older kernels ignore it). */
export const FOPEN_NOFLUSH = 1 << 5;

/** `struct fuse_fsync_in.fsync_flags`. */
export const FUSE_FSYNC_FDATASYNC = 1 << 0;

/** `struct fuse_write_in.write_flags`: write-back of a mapped page, by no process in particular. */
export const FUSE_WRITE_CACHE = 1 << 0;

/** `struct fuse_rename2_in.flags`: renameat2(2). */
export const RENAME_NOREPLACE = 1 << 0;
