import koffi from 'koffi';
import {LibcError} from './libc.ts';

/** Calls on files that Node's `fs` lacks or offers with less precision: fallocate, utimensat, mknod, getdents64. */

const libc = koffi.load(null);
const nativeFallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const nativeUtimensat = libc.func('int utimensat(int directory, const char *path, void *times, int flags)');
const nativeMknod = libc.func('int mknod(const char *path, unsigned int mode, uint64_t device)');

const nativeGetdents = bindGetdents();

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
/** `tv_nsec` values of utimensat(2): the current time; leave as it is. */
export const UTIME_NOW = (1n << 30n) - 1n;
export const UTIME_OMIT = (1n << 30n) - 2n;

export interface Timespec {
  readonly seconds: bigint;
  /** Nanoseconds below one second, or UTIME_NOW, or UTIME_OMIT. */
  readonly nanoseconds: bigint;
}

/** fallocate(2): `mode` is the kernel's FALLOC_FL_*; sizes in bytes. */
export function fallocate(fd: number, mode: number, offset: number, length: number): void {
  if (nativeFallocate(fd, mode, offset, length) !== 0)
    throw new LibcError('fallocate', koffi.errno(), {fd, mode, offset, length});
}

/** Sets the times of `path` itself (a symbolic link is not followed), to the nanosecond. */
export function setTimes(path: string, atime: Timespec, mtime: Timespec): void {
  const times = new BigInt64Array([atime.seconds, atime.nanoseconds, mtime.seconds, mtime.nanoseconds]);
  if (nativeUtimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) !== 0)
    throw new LibcError('utimensat', koffi.errno(), {path});
}

/** mknod(2): pipes, sockets and, as root, devices. */
export function makeNode(path: string, mode: number, device: number): void {
  if (nativeMknod(path, mode, device) !== 0) throw new LibcError('mknod', koffi.errno(), {path, mode});
}

export interface FolderEntry {
  /** The name's bytes, whatever they are. */
  readonly name: Buffer;
  readonly ino: number;
  /** DT_* of readdir(3), 0 where the file system does not tell. */
  readonly type: number;
}

// struct linux_dirent64:  0 d_ino u64 | 8 d_off i64 | 16 d_reclen u16 | 18 d_type u8 | 19 d_name, NUL-terminated
const DIRENT_NAME_OFFSET = 19;
const DIRENT_BUFFER_SIZE = 256 * 1024;

/** The entries of the open folder `fd` from its position on, "." and ".." among them, with their inode numbers: no call per file. */
export function readFolder(fd: number): FolderEntry[] {
  const entries: FolderEntry[] = [];
  const buffer = Buffer.allocUnsafe(DIRENT_BUFFER_SIZE);
  for (;;) {
    const size = Number(nativeGetdents(fd, buffer, buffer.length));
    if (size < 0) throw new LibcError('getdents64', koffi.errno(), {fd});
    if (size === 0) return entries;
    for (let at = 0; at < size; at += buffer.readUInt16LE(at + 16)) {
      const name = buffer.subarray(at + DIRENT_NAME_OFFSET, buffer.indexOf(0, at + DIRENT_NAME_OFFSET));
      entries.push({name: Buffer.from(name), ino: Number(buffer.readBigUInt64LE(at)), type: buffer[at + 18]});
    }
  }
}

/** musl has it as `getdents` only. */
function bindGetdents(): (fd: number, target: Buffer, size: number) => number {
  try {
    return libc.func('intptr_t getdents64(int fd, void *target, size_t size)');
  } catch {
    return libc.func('intptr_t getdents(int fd, void *target, size_t size)');
  }
}
