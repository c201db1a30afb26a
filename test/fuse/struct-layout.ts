import {closeSync, mkdtempSync, openSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

const SIZES = {u64: 8, i64: 8, u32: 4, i32: 4, u16: 2} as const;
type FieldType = keyof typeof SIZES;
export type Layout = readonly (readonly [name: string, type: FieldType])[];

/** Reads a C struct without padding, as include/uapi/linux/fuse.h declares it. */
export function readStruct(bytes: Buffer, layout: Layout, start = 0): Record<string, bigint> {
  const found: Record<string, bigint> = {};
  let at = start;
  for (const [name, type] of layout) {
    found[name] = readField(bytes, type, at);
    at += SIZES[type];
  }
  return found;
}

function readField(bytes: Buffer, type: FieldType, at: number): bigint {
  switch (type) {
    case 'u64':
      return bytes.readBigUInt64LE(at);
    case 'i64':
      return bytes.readBigInt64LE(at);
    case 'u32':
      return BigInt(bytes.readUInt32LE(at));
    case 'i32':
      return BigInt(bytes.readInt32LE(at));
    case 'u16':
      return BigInt(bytes.readUInt16LE(at));
  }
}

export function sizeOf(layout: Layout): number {
  return layout.reduce((sum, [, type]) => sum + SIZES[type], 0);
}

export const OUT_HEADER: Layout = [
  ['len', 'u32'],
  ['error', 'i32'],
  ['unique', 'u64'],
];
export const ATTR: Layout = [
  ['ino', 'u64'],
  ['size', 'u64'],
  ['blocks', 'u64'],
  ['atime', 'i64'],
  ['mtime', 'i64'],
  ['ctime', 'i64'],
  ['atimensec', 'u32'],
  ['mtimensec', 'u32'],
  ['ctimensec', 'u32'],
  ['mode', 'u32'],
  ['nlink', 'u32'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['rdev', 'u32'],
  ['blksize', 'u32'],
  ['flags', 'u32'],
];
export const ENTRY_OUT: Layout = [
  ['nodeid', 'u64'],
  ['generation', 'u64'],
  ['entry_valid', 'u64'],
  ['attr_valid', 'u64'],
  ['entry_valid_nsec', 'u32'],
  ['attr_valid_nsec', 'u32'],
  ...ATTR,
];
export const ATTR_OUT: Layout = [
  ['attr_valid', 'u64'],
  ['attr_valid_nsec', 'u32'],
  ['dummy', 'u32'],
  ...ATTR,
];
export const OPEN_OUT: Layout = [
  ['fh', 'u64'],
  ['open_flags', 'u32'],
  ['backing_id', 'i32'],
];

/** Stands for the connection's descriptor: keeps what is written to it. */
export class Written {
  readonly fd: number;
  readonly #directory = mkdtempSync(join(tmpdir(), 'ferrite-fuse-'));
  #taken = 0;

  constructor() {
    this.fd = openSync(join(this.#directory, 'written'), 'w');
  }

  /** The messages since the last call, cut by the length that each begins with. */
  take(): Buffer[] {
    const bytes = readFileSync(join(this.#directory, 'written'));
    const messages: Buffer[] = [];
    while (this.#taken < bytes.length) {
      const size = bytes.readUInt32LE(this.#taken);
      messages.push(bytes.subarray(this.#taken, this.#taken + size));
      this.#taken += size;
    }
    return messages;
  }

  close(): void {
    closeSync(this.fd);
    rmSync(this.#directory, {recursive: true});
  }
}
