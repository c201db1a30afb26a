import {FUSE_INIT} from './opcodes.ts';

/** INIT flags: `FUSE_*` of struct fuse_init_in.flags (bits 0 to 31) and flags2 (bits 32 to 63). */
const FUSE_ASYNC_READ = 1 << 0;
const FUSE_BIG_WRITES = 1 << 5;
const FUSE_PARALLEL_DIROPS = 1 << 18;
const FUSE_MAX_PAGES = 1 << 22;
const FUSE_CACHE_SYMLINKS = 1 << 23;
const FUSE_NO_OPENDIR_SUPPORT = 1 << 24;
const FUSE_EXPLICIT_INVAL_DATA = 1 << 25;
const FUSE_INIT_EXT = 1 << 30;
/** Bit 39, so bit 7 of flags2: the kernel knows FUSE_NOTIFY_RESEND (Linux 6.9). */
const FUSE_HAS_RESEND_FLAGS2 = 1 << 7;

/**
 * What we ask of the kernel where it offers it. Left out on purpose: FUSE_POSIX_LOCKS (locks stay in the
 * kernel), FUSE_WRITEBACK_CACHE (a commit must be seen when it happens), FUSE_AUTO_INVAL_DATA (the
 * daemon invalidates; EXPLICIT_INVAL_DATA keeps the page cache when a file's size changes).
 */
const WANTED =
  FUSE_ASYNC_READ |
  FUSE_BIG_WRITES |
  FUSE_PARALLEL_DIROPS |
  FUSE_MAX_PAGES |
  FUSE_CACHE_SYMLINKS |
  FUSE_NO_OPENDIR_SUPPORT |
  FUSE_EXPLICIT_INVAL_DATA |
  FUSE_INIT_EXT;

/** Largest payload of one WRITE request, in bytes. */
export const MAX_WRITE = 256 * 1024;
/** Size of the buffer that a request is read into: struct fuse_in_header and fuse_write_in, then the payload. */
export const REQUEST_BUFFER_SIZE = MAX_WRITE + 4096;

const INIT_IN_OFFSET = 40; // sizeof(struct fuse_in_header)
const INIT_OUT_SIZE = 64; // sizeof(struct fuse_init_out)
const MINOR_MIN = 31;
const MINOR_MAX = 40;

export type FuseInitErrorCode = 'FUSE_INIT_EXPECTED' | 'FUSE_TOO_OLD';

export class FuseInitError extends Error {
  override readonly name = 'FuseInitError';
  readonly code: FuseInitErrorCode;

  constructor(code: FuseInitErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface FuseInit {
  /** The reply to write to the descriptor. */
  readonly reply: Uint8Array;
  readonly minor: number;
  /** Whether the kernel can resend requests to a new daemon (FUSE_NOTIFY_RESEND). */
  readonly hasResend: boolean;
}

/** Answers the first request of a connection, FUSE_INIT (struct fuse_init_in, struct fuse_init_out). */
export function answerInit(request: Buffer): FuseInit {
  if (request.length < INIT_IN_OFFSET + 16 || request.readUInt32LE(4) !== FUSE_INIT) {
    throw new FuseInitError(
      'FUSE_INIT_EXPECTED',
      'Cannot start FUSE session: the first request is not FUSE_INIT',
    );
  }
  const major = request.readUInt32LE(INIT_IN_OFFSET);
  const minor = request.readUInt32LE(INIT_IN_OFFSET + 4);
  if (major !== 7 || minor < MINOR_MIN) {
    throw new FuseInitError(
      'FUSE_TOO_OLD',
      `Cannot start FUSE session: kernel speaks ${major}.${minor}, need 7.${MINOR_MIN}`,
    );
  }
  const offered = request.readUInt32LE(INIT_IN_OFFSET + 12);
  const isExtended = (offered & FUSE_INIT_EXT) !== 0 && request.length >= INIT_IN_OFFSET + 20;
  const offered2 = isExtended ? request.readUInt32LE(INIT_IN_OFFSET + 16) : 0;
  const reply = Buffer.alloc(16 + INIT_OUT_SIZE);
  reply.writeUInt32LE(reply.length, 0);
  request.copy(reply, 8, 8, 16); // unique
  reply.writeUInt32LE(7, 16);
  reply.writeUInt32LE(Math.min(minor, MINOR_MAX), 20);
  reply.writeUInt32LE(request.readUInt32LE(INIT_IN_OFFSET + 8), 24); // max_readahead as offered
  reply.writeUInt32LE((offered & WANTED) >>> 0, 28);
  reply.writeUInt16LE(64, 32); // max_background
  reply.writeUInt16LE(48, 34); // congestion_threshold
  reply.writeUInt32LE(MAX_WRITE, 36);
  reply.writeUInt32LE(1, 40); // time_gran, nanoseconds
  reply.writeUInt16LE(MAX_WRITE / 4096, 44); // max_pages
  reply.writeUInt32LE(offered2 & FUSE_HAS_RESEND_FLAGS2, 48); // flags2
  return {reply, minor, hasResend: (offered2 & FUSE_HAS_RESEND_FLAGS2) !== 0};
}
