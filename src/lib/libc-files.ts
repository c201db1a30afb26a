import koffi from 'koffi';
import {LibcError} from './libc.ts';

/** Calls on files that Node's `fs` lacks or offers with less precision: fallocate, utimensat, mknod. */

const libc = koffi.load(null);
const nativeFallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const nativeUtimensat = libc.func('int utimensat(int directory, const char *path, void *times, int flags)');
const nativeMknod = libc.func('int mknod(const char *path, unsigned int mode, uint64_t device)');

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
  if (nativeFallocate(fd, mode, offset, length) !== 0) throw new LibcError('fallocate', koffi.errno(), {fd, mode, offset, length});
}

/** Sets the times of `path` itself (a symbolic link is not followed), to the nanosecond. */
export function setTimes(path: string, atime: Timespec, mtime: Timespec): void {
  const times = new BigInt64Array([atime.seconds, atime.nanoseconds, mtime.seconds, mtime.nanoseconds]);
  if (nativeUtimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) !== 0) throw new LibcError('utimensat', koffi.errno(), {path});
}

/** mknod(2): pipes, sockets and, as root, devices. */
export function makeNode(path: string, mode: number, device: number): void {
  if (nativeMknod(path, mode, device) !== 0) throw new LibcError('mknod', koffi.errno(), {path, mode});
}
