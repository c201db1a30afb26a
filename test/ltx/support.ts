import fc from 'fast-check';
import {PageHasher, xorChecksum} from '../../src/ltx/checksum.ts';
import {Crc64Factory} from '../../src/ltx/crc64.ts';
import {LtxDecoder} from '../../src/ltx/decoder.ts';
import {LtxEncoder} from '../../src/ltx/encoder.ts';
import type {LtxHeader} from '../../src/ltx/header.ts';
import {CHECKSUM_FLAG, type Checksum, toTxid} from '../../src/ltx/position.ts';
import {type ByteSource, bytesSource} from '../../src/ltx/record-reader.ts';
import type {LtxTrailer} from '../../src/ltx/trailer.ts';

export const factory = await Crc64Factory.open();
export const hasher = new PageHasher(factory);

/** The pages of a database, or of a transaction, by number. */
export type Pages = ReadonlyMap<number, Uint8Array>;

export interface Decoded {
  readonly header: LtxHeader;
  readonly pages: Pages;
  readonly trailer: LtxTrailer;
}

export function headerOf(fields: Partial<LtxHeader> = {}): LtxHeader {
  return {
    pageSize: 512,
    commit: 1,
    minTxid: toTxid(1n),
    maxTxid: toTxid(1n),
    timestampMs: 1000,
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
    noChecksum: false,
    ...fields,
  };
}

export function filled(pageSize: number, byte: number): Uint8Array {
  return new Uint8Array(pageSize).fill(byte);
}

export function rollingChecksum(pages: Pages): Checksum {
  let sum = CHECKSUM_FLAG;
  for (const [pgno, page] of pages) sum = xorChecksum(sum, hasher.checksum(pgno, page));
  return sum;
}

export interface EncodeOptions {
  readonly compress?: boolean;
  readonly lockPgno?: number;
}

/** Copies each chunk at once, and spoils what is left of it afterwards only where it is the encoder's own. */
export function collector(): {write: (chunk: Uint8Array) => void; bytes: () => Buffer} {
  const chunks: Uint8Array[] = [];
  return {write: chunk => chunks.push(Uint8Array.from(chunk)), bytes: () => Buffer.concat(chunks)};
}

export function encode(header: LtxHeader, pages: Pages, post: bigint, options: EncodeOptions = {}): Buffer {
  const {write, bytes} = collector();
  const encoder = new LtxEncoder({
    header,
    crc64: factory.create(),
    compress: options.compress ?? false,
    write,
    lockPgno: options.lockPgno,
  });
  for (const [pgno, page] of pages) encoder.encodePage(pgno, page);
  encoder.close(post);
  return bytes();
}

/** Decodes all of a record, and checks a snapshot's pages too. */
export function decode(source: ByteSource | Uint8Array, lockPgno?: number): Decoded {
  const decoder = decoderOf(source, lockPgno);
  const pages = new Map<number, Uint8Array>();
  for (let next = decoder.nextPage(); next !== undefined; next = decoder.nextPage()) {
    pages.set(next.pgno, Uint8Array.from(next.page));
  }
  return {header: decoder.header, pages, trailer: decoder.close()};
}

export function decoderOf(source: ByteSource | Uint8Array, lockPgno?: number): LtxDecoder {
  const crc64 = factory.create();
  return new LtxDecoder({
    source: source instanceof Uint8Array ? bytesSource(source) : source,
    crc64,
    lockPgno,
    pageHasher: hasher,
  });
}

/** A source that is no memory, and gives at most `countMax` bytes at a time, as files and sockets may. */
export function shortReadsSource(bytes: Uint8Array, countMax: number): ByteSource {
  return {
    size: bytes.length,
    read(position, target) {
      const part = bytes.subarray(position, position + Math.min(countMax, target.length));
      target.set(part);
      return part.length;
    },
  };
}

/** A page that compresses well, badly or not at all. */
export function pageArbitrary(pageSize: number): fc.Arbitrary<Uint8Array> {
  return fc.tuple(fc.constantFrom('flat', 'runs', 'noise'), fc.nat(0xffff_fffe)).map(([kind, seed]) => {
    if (kind === 'flat') return filled(pageSize, seed & 0xff);
    const page = new Uint8Array(pageSize);
    let state = seed + 1;
    for (let i = 0; i < pageSize; i++) {
      // xorshift32
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      page[i] = kind === 'noise' || i % 97 < 20 ? state : i >> 6;
    }
    return page;
  });
}
