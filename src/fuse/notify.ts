import {writeSync} from 'node:fs';
import {
  FUSE_NOTIFY_DELETE,
  FUSE_NOTIFY_INVAL_ENTRY,
  FUSE_NOTIFY_INVAL_INODE,
  FUSE_NOTIFY_RESEND,
  FUSE_NOTIFY_STORE,
} from './opcodes.ts';
import {ignoreGone, OUT_HEADER_SIZE} from './reply.ts';

const STORE_OUT_SIZE = 24; // sizeof(struct fuse_notify_store_out)
/** Largest payload of one STORE; a longer one is cut up. */
const STORE_BYTES_MAX = 1024 * 1024;

/**
 * Tells the kernel what the daemon changed by itself. Every call may wait for a page's or a folder's lock
 * that an app holds while it waits for the daemon: never call one from the thread that answers requests
 * (`store` beyond a file's end is the exception: nobody can be reading there).
 * What the kernel does not know, or has forgotten, is no error.
 */
export class KernelNotifier {
  readonly #fd: number;
  #buffer = Buffer.allocUnsafeSlow(OUT_HEADER_SIZE + STORE_OUT_SIZE + 64 * 1024);

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** FUSE_NOTIFY_STORE: puts `bytes` into the page cache of `nodeid` at `offset`, growing the file's size as the kernel sees it. */
  store(nodeid: number, offset: number, bytes: Uint8Array): void {
    for (let start = 0; start < bytes.length; start += STORE_BYTES_MAX) {
      const part = bytes.subarray(start, start + STORE_BYTES_MAX);
      const size = STORE_OUT_SIZE + part.length;
      this.#reserve(size);
      const at = OUT_HEADER_SIZE;
      this.#u64(at, nodeid);
      this.#u64(at + 8, offset + start);
      this.#buffer.writeUInt32LE(part.length, at + 16);
      this.#buffer.writeUInt32LE(0, at + 20);
      this.#buffer.set(part, at + STORE_OUT_SIZE);
      this.#send(FUSE_NOTIFY_STORE, size);
    }
  }

  /** FUSE_NOTIFY_INVAL_INODE: drops the attributes and, from `offset` on (`length` 0: to the end), the cached pages. */
  invalidateInode(nodeid: number, offset = 0, length = 0): void {
    this.#u64(OUT_HEADER_SIZE, nodeid);
    this.#u64(OUT_HEADER_SIZE + 8, offset);
    this.#u64(OUT_HEADER_SIZE + 16, length);
    this.#send(FUSE_NOTIFY_INVAL_INODE, 24);
  }

  /** FUSE_NOTIFY_INVAL_ENTRY: the kernel looks `name` up again, also where it remembered that there is none. */
  invalidateEntry(parent: number, name: string): void {
    const at = OUT_HEADER_SIZE;
    const nameSize = this.#buffer.write(name, at + 16, 'utf8');
    this.#u64(at, parent);
    this.#buffer.writeUInt32LE(nameSize, at + 8);
    this.#buffer.writeUInt32LE(0, at + 12);
    this.#buffer[at + 16 + nameSize] = 0;
    this.#send(FUSE_NOTIFY_INVAL_ENTRY, 16 + nameSize + 1);
  }

  /** FUSE_NOTIFY_DELETE: `name` is gone from `parent`; open files of it live on. */
  deleted(parent: number, child: number, name: string): void {
    const at = OUT_HEADER_SIZE;
    const nameSize = this.#buffer.write(name, at + 24, 'utf8');
    this.#u64(at, parent);
    this.#u64(at + 8, child);
    this.#buffer.writeUInt32LE(nameSize, at + 16);
    this.#buffer.writeUInt32LE(0, at + 20);
    this.#buffer[at + 24 + nameSize] = 0;
    this.#send(FUSE_NOTIFY_DELETE, 24 + nameSize + 1);
  }

  /** FUSE_NOTIFY_RESEND: the kernel queues every unanswered request again, marked in `unique`. */
  resend(): void {
    this.#send(FUSE_NOTIFY_RESEND, 0);
  }

  #reserve(size: number): void {
    if (this.#buffer.length < OUT_HEADER_SIZE + size)
      this.#buffer = Buffer.allocUnsafeSlow(OUT_HEADER_SIZE + size);
  }

  #u64(at: number, value: number): void {
    this.#buffer.writeUInt32LE(value % 0x1_0000_0000, at);
    this.#buffer.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
  }

  #send(code: number, bodySize: number): void {
    this.#buffer.writeUInt32LE(OUT_HEADER_SIZE + bodySize, 0);
    this.#buffer.writeInt32LE(code, 4);
    this.#buffer.fill(0, 8, 16); // unique 0 marks a notification
    try {
      writeSync(this.#fd, this.#buffer, 0, OUT_HEADER_SIZE + bodySize);
    } catch (error) {
      const {code: errorCode} = error as NodeJS.ErrnoException;
      if (
        errorCode === 'ENOTDIR' ||
        errorCode === 'EINVAL' ||
        errorCode === 'ENOTEMPTY' ||
        errorCode === 'EBUSY'
      )
        return;
      ignoreGone(error);
    }
  }
}
