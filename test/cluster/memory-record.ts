import {crc32} from 'node:zlib';
import {
  CHECKSUM_FLAG,
  type Checksum,
  type Position,
  type Txid,
  toChecksum,
  toTxid,
} from '../../src/ltx/position.ts';

/** A stand-in for an LTX record: the same meaning in a simpler layout, so that these tests need no codec but the wire's. */
export interface MemoryRecord {
  readonly minTxid: Txid;
  readonly maxTxid: Txid;
  readonly pre: Checksum;
  readonly post: Checksum;
  readonly term: bigint;
  readonly commit: number;
  readonly pageSize: number;
  readonly pages: ReadonlyMap<number, Uint8Array>;
}

const HEADER_SIZE = 64;

export class RecordError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export function encodeRecord(record: MemoryRecord): Uint8Array {
  const size = HEADER_SIZE + record.pages.size * (4 + record.pageSize);
  const bytes = Buffer.alloc(size);
  bytes.writeUInt32BE(size, 0);
  bytes.writeBigUInt64BE(record.minTxid, 8);
  bytes.writeBigUInt64BE(record.maxTxid, 16);
  bytes.writeBigUInt64BE(record.pre, 24);
  bytes.writeBigUInt64BE(record.post, 32);
  bytes.writeBigUInt64BE(record.term, 40);
  bytes.writeUInt32BE(record.commit, 48);
  bytes.writeUInt32BE(record.pageSize, 52);
  bytes.writeUInt32BE(record.pages.size, 56);
  let at = HEADER_SIZE;
  for (const [pgno, page] of record.pages) {
    bytes.writeUInt32BE(pgno, at);
    bytes.set(page, at + 4);
    at += 4 + record.pageSize;
  }
  bytes.writeUInt32BE(crc32(bytes.subarray(8)), 4);
  return bytes;
}

/** Splits and decodes records that stand back to back. */
export function decodeRecords(input: Uint8Array): MemoryRecord[] {
  const records: MemoryRecord[] = [];
  let rest = Buffer.from(input);
  while (rest.length > 0) {
    if (rest.length < HEADER_SIZE || rest.readUInt32BE(0) > rest.length)
      throw new RecordError('LTX_TRUNCATED', 'torn');
    const size = rest.readUInt32BE(0);
    records.push(decodeRecord(rest.subarray(0, size)));
    rest = rest.subarray(size);
  }
  return records;
}

function decodeRecord(bytes: Buffer): MemoryRecord {
  if (crc32(bytes.subarray(8)) !== bytes.readUInt32BE(4)) throw new RecordError('LTX_CHECKSUM', 'bad bytes');
  const pageSize = bytes.readUInt32BE(52);
  const pages = new Map<number, Uint8Array>();
  for (let at = HEADER_SIZE; at < bytes.length; at += 4 + pageSize) {
    pages.set(bytes.readUInt32BE(at), new Uint8Array(bytes.subarray(at + 4, at + 4 + pageSize)));
  }
  return {
    minTxid: toTxid(bytes.readBigUInt64BE(8)),
    maxTxid: toTxid(bytes.readBigUInt64BE(16)),
    pre: toChecksum(bytes.readBigUInt64BE(24)),
    post: toChecksum(bytes.readBigUInt64BE(32)),
    term: bytes.readBigUInt64BE(40),
    commit: bytes.readUInt32BE(48),
    pageSize,
    pages,
  };
}

/** The last version of each page of `records`, which follow on each other, as one record. */
export function compactRecords(records: readonly MemoryRecord[]): MemoryRecord {
  const first = records[0];
  const last = records[records.length - 1];
  const pages = new Map<number, Uint8Array>();
  for (const record of records) for (const [pgno, page] of record.pages) pages.set(pgno, page);
  for (const pgno of [...pages.keys()]) if (pgno > last.commit) pages.delete(pgno);
  return {...last, minTxid: first.minTxid, pre: first.pre, pages};
}

/** Pages by 1-based number; what is missing below `commit` is a bug of the test. */
export class MemoryPages {
  pageSize: number;
  #pages: Uint8Array[] = [];
  #sum = 0n;

  constructor(pageSize: number) {
    this.pageSize = pageSize;
  }

  get count(): number {
    return this.#pages.length;
  }

  get checksum(): Checksum {
    return toChecksum(CHECKSUM_FLAG | this.#sum);
  }

  get(pgno: number): Uint8Array {
    return this.#pages[pgno - 1] ?? new Uint8Array(this.pageSize);
  }

  set(pgno: number, page: Uint8Array): void {
    while (this.#pages.length < pgno) this.#pages.push(new Uint8Array(0));
    this.#sum ^= this.#hash(pgno);
    this.#pages[pgno - 1] = page;
    this.#sum ^= this.#hash(pgno);
  }

  truncate(count: number): void {
    for (let pgno = count + 1; pgno <= this.#pages.length; pgno++) this.#sum ^= this.#hash(pgno);
    this.#pages.length = Math.min(count, this.#pages.length);
  }

  clone(): MemoryPages {
    const clone = new MemoryPages(this.pageSize);
    this.#pages.forEach((page, index) => {
      clone.set(index + 1, page);
    });
    return clone;
  }

  #hash(pgno: number): bigint {
    const page = this.#pages[pgno - 1];
    return page.length === 0 ? 0n : (BigInt(crc32(page, pgno)) << 20n) | BigInt(pgno & 0xfffff);
  }
}

export function positionOf(txid: bigint, checksum: Checksum): Position {
  return {txid: toTxid(txid), checksum};
}
