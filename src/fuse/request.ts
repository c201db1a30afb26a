import {REQUEST_BUFFER_SIZE} from './init.ts';

/** sizeof(struct fuse_in_header). */
export const IN_HEADER_SIZE = 40;

/** Which request a later answer belongs to: `unique` of struct fuse_in_header as two halves. */
export interface RequestId {
  readonly low: number;
  readonly high: number;
}

/**
 * The request that is being served, as a view into one buffer that is used again for the next: copy what
 * must outlive the call. All integers are in native byte order, which is little-endian wherever this runs.
 */
export class FuseRequest {
  readonly buffer = Buffer.allocUnsafeSlow(REQUEST_BUFFER_SIZE);
  length = 0;

  get opcode(): number {
    return this.buffer.readUInt32LE(4);
  }

  get id(): RequestId {
    return {low: this.buffer.readUInt32LE(8), high: this.buffer.readUInt32LE(12)};
  }

  /** The kernel sent this one before and got no answer (FUSE_UNIQUE_RESEND): what it asks for may already be done. */
  get isResent(): boolean {
    return (this.buffer[15] & 0x80) !== 0;
  }

  get nodeid(): number {
    return this.u64(-24);
  }

  get uid(): number {
    return this.buffer.readUInt32LE(24);
  }

  get gid(): number {
    return this.buffer.readUInt32LE(28);
  }

  /** Thread ID of the caller, 0 for the kernel itself. */
  get pid(): number {
    return this.buffer.readUInt32LE(32);
  }

  /** A 32-bit field, `offset` bytes into the body. */
  u32(offset: number): number {
    return this.buffer.readUInt32LE(IN_HEADER_SIZE + offset);
  }

  /** A 64-bit field as a number: the kernel's offsets, sizes and our node IDs stay below 2^53. */
  u64(offset: number): number {
    const at = IN_HEADER_SIZE + offset;
    return this.buffer.readUInt32LE(at) + this.buffer.readUInt32LE(at + 4) * 0x1_0000_0000;
  }

  /** A signed 64-bit field: times before 1970. */
  i64(offset: number): bigint {
    return this.buffer.readBigInt64LE(IN_HEADER_SIZE + offset);
  }

  /** The bytes from `offset` of the body to the end of the request, as a view. */
  payload(offset: number): Buffer {
    return this.buffer.subarray(IN_HEADER_SIZE + offset, this.length);
  }

  /** NUL-terminated names that start at `offset` of the body, as bytes. */
  names(offset: number, count: number): Buffer[] {
    const found: Buffer[] = [];
    let start = IN_HEADER_SIZE + offset;
    while (found.length < count) {
      const end = this.buffer.subarray(0, this.length).indexOf(0, start);
      if (end < 0) break;
      found.push(this.buffer.subarray(start, end));
      start = end + 1;
    }
    return found;
  }
}
