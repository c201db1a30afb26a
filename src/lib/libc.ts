import koffi from 'koffi';

/**
 * The few calls of the C library that Node lacks. Everything is bound once, when this module is loaded, and
 * arguments live in buffers that are made once too, so that a call costs half a microsecond and no garbage.
 * A buffer is filled and used within one synchronous call, and each thread has a module of its own.
 */

const libc = koffi.load(null);
const nativePoll = libc.func('int poll(void *fds, unsigned long count, int timeoutMs)');
const nativeEventfd = libc.func('int eventfd(unsigned int initial, int flags)');
// Variadic because some calling conventions pass the arguments behind the dots differently.
const nativeFcntl = libc.func('int fcntl(int fd, int command, ...)');
const nativeMmap = libc.func(
  'void *mmap(intptr_t address, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const nativeMunmap = libc.func('int munmap(void *address, size_t length)');
const nativeGetpagesize = libc.func('int getpagesize()');

const POLLIN = 0x001;
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_OFD_SETLKW = 38;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffffffffffffffffn;

const {EACCES, EAGAIN, EINTR} = koffi.os.errno;

/**
 * A call of the C library failed. `errno` is the number, `code` its name as in Node's own errors (`EBADF`).
 */
export class LibcError extends Error {
  override readonly name = 'LibcError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(syscall: string, errno: number, detail: Readonly<Record<string, unknown>>) {
    const code = errnoName(errno);
    super(`Cannot call ${syscall}: ${code}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
    this.detail = detail;
  }
}

function errnoName(errno: number): string {
  for (const [name, value] of Object.entries(koffi.os.errno)) if (value === errno) return name;
  return `errno ${errno}`;
}

/** Waits until one of a fixed set of descriptors can be read. */
export interface Poller {
  /**
   * Waits at most `timeoutMs` (0: don't wait, -1: for ever). Returns a bitmask: bit i is set when the i-th
   * descriptor is readable, in error or hung up; 0 means that the time is over. A signal doesn't end the
   * wait.
   */
  wait(timeoutMs: number): number;
}

// struct pollfd:  0 fd i32 | 4 events i16 | 6 revents i16
const POLLFD_SIZE = 8;
const POLLER_FDS_MAX = 30;

/** Makes a poller over at most 30 descriptors, which stay the caller's to close. */
export function createPoller(fds: readonly number[]): Poller {
  if (fds.length === 0 || fds.length > POLLER_FDS_MAX) {
    throw new LibcError('poll', koffi.os.errno.EINVAL, {count: fds.length, countMax: POLLER_FDS_MAX});
  }
  const buffer = new ArrayBuffer(fds.length * POLLFD_SIZE);
  const view = new Int16Array(buffer);
  const numbers = new Int32Array(buffer);
  for (let i = 0; i < fds.length; i++) {
    numbers[i * 2] = fds[i];
    view[i * 4 + 2] = POLLIN;
  }
  return {wait: timeoutMs => pollWait(view, fds.length, timeoutMs)};
}

function pollWait(pollfds: Int16Array, count: number, timeoutMs: number): number {
  let ready = nativePoll(pollfds, count, timeoutMs);
  if (ready < 0) ready = pollAgain(pollfds, count, timeoutMs);
  if (ready === 0) return 0;
  let mask = 0;
  for (let i = 0; i < count; i++) if (pollfds[i * 4 + 3] !== 0) mask |= 1 << i;
  return mask;
}

/** Goes on waiting after a signal, for what is left of the time; only here does the clock get read. */
function pollAgain(pollfds: Int16Array, count: number, timeoutMs: number): number {
  const start = performance.now();
  for (;;) {
    const errno = koffi.errno();
    if (errno !== EINTR) throw new LibcError('poll', errno, {count, timeoutMs});
    const left = timeoutMs < 0 ? -1 : Math.max(0, Math.ceil(timeoutMs - (performance.now() - start)));
    const ready = nativePoll(pollfds, count, left);
    if (ready >= 0) return ready;
  }
}

/**
 * Makes an event counter descriptor (non-blocking, closed on exec). Write 8 bytes, a native-endian u64, to
 * add; read 8 bytes to take the sum, which makes it unreadable until the next write (a read then fails with
 * EAGAIN).
 */
export function eventfd(): number {
  const fd: number = nativeEventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw new LibcError('eventfd', koffi.errno(), {});
  return fd;
}

export type OfdLockType = 'read' | 'write' | 'unlock';

// struct flock (64-bit):  0 l_type i16 | 2 l_whence i16 | 8 l_start i64 | 16 l_len i64 | 24 l_pid i32
const flockBytes = new ArrayBuffer(32);
const flock16 = new Int16Array(flockBytes);
const flock32 = new Int32Array(flockBytes);
const flock64 = new BigInt64Array(flockBytes);

function fillFlock(type: OfdLockType, start: number, length: number): void {
  flock16[0] = type === 'read' ? F_RDLCK : type === 'write' ? F_WRLCK : F_UNLCK;
  flock16[1] = 0; // SEEK_SET
  flock64[1] = BigInt(start);
  flock64[2] = BigInt(length);
  flock32[6] = 0; // The kernel demands it for locks of open file descriptions.
}

/**
 * Takes, converts or drops an open-file-description lock on `length` bytes from `start` without waiting.
 * Returns false when another lock is in the way, and then the locks are as they were. Such locks conflict
 * with the POSIX locks that SQLite uses, belong to the descriptor (not to the process) and end with its last
 * close.
 */
export function ofdLock(fd: number, type: OfdLockType, start: number, length: number): boolean {
  fillFlock(type, start, length);
  for (;;) {
    if (nativeFcntl(fd, F_OFD_SETLK, 'void *', flock16) === 0) return true;
    const errno = koffi.errno();
    if (errno === EAGAIN || errno === EACCES) return false;
    if (errno !== EINTR) throw new LibcError('fcntl', errno, {fd, type, start, length});
  }
}

/** As `ofdLock`, but waits for the lock without limit: only for threads that may stand still. */
export function ofdLockWait(fd: number, type: OfdLockType, start: number, length: number): void {
  fillFlock(type, start, length);
  while (nativeFcntl(fd, F_OFD_SETLKW, 'void *', flock16) !== 0) {
    const errno = koffi.errno();
    if (errno !== EINTR) throw new LibcError('fcntl', errno, {fd, type, start, length});
  }
}

/**
 * A lock that stands in the way. `pid` is -1 when it is an open-file-description lock, which has no owner.
 */
export interface LockConflict {
  readonly type: 'read' | 'write';
  readonly start: number;
  readonly length: number;
  readonly pid: number;
}

/** Says which lock (the first found) would keep `ofdLock` from succeeding, or undefined when none would. */
export function ofdLockConflict(
  fd: number,
  type: 'read' | 'write',
  start: number,
  length: number,
): LockConflict | undefined {
  fillFlock(type, start, length);
  if (nativeFcntl(fd, F_OFD_GETLK, 'void *', flock16) !== 0) {
    throw new LibcError('fcntl', koffi.errno(), {fd, type, start, length});
  }
  if (flock16[0] === F_UNLCK) return undefined;
  return {
    type: flock16[0] === F_RDLCK ? 'read' : 'write',
    start: Number(flock64[1]),
    length: Number(flock64[2]),
    pid: flock32[6],
  };
}

/** A piece of a file in memory, shared with every other process that maps it. */
export interface FileMapping {
  /** The bytes. After `unmap` nothing may touch them: the process would die of SIGSEGV. */
  readonly buffer: ArrayBuffer;
  unmap(): void;
}

/** The machine's page size in bytes: `mmapShared` takes only multiples of it as offset. */
export function systemPageSize(): number {
  return nativeGetpagesize();
}

/**
 * Maps `length` bytes of the file from `offset`, to read and write. The file must be that long already, and
 * stay so: touching a page behind its end is SIGBUS.
 */
export function mmapShared(fd: number, offset: number, length: number): FileMapping {
  const address: bigint = nativeMmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  if (address === MAP_FAILED || address === -1n) {
    throw new LibcError('mmap', koffi.errno(), {fd, offset, length});
  }
  const buffer = koffi.view(address, length);
  return {
    buffer,
    unmap() {
      if (nativeMunmap(address, length) !== 0) {
        throw new LibcError('munmap', koffi.errno(), {length});
      }
    },
  };
}
