import {assert} from '../lib/assert.ts';
import type {Disk} from '../lib/disk.ts';
import {CHECKSUM_HEADER_SIZE} from './checksum-header.ts';

const ENTRY_SIZE = 8;

/** Frozen: what it holds belongs to a flush that has not written it yet. A write to it goes to a copy. */
type ChunkState = 'clean' | 'dirty' | 'frozen';

interface Chunk {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  state: ChunkState;
}

/** What one flush has to write, as it was when the flush was prepared. */
export interface FrozenChunks {
  readonly chunks: readonly Chunk[];
  /** The file is cut to this size first. */
  readonly truncateTo: number | undefined;
}

export interface ChunkOptions {
  /** The file; `undefined` as long as there is none. */
  readonly fd: number | undefined;
  /** How many entries of the file are good; whatever follows them is cut off at the next flush. */
  readonly entryCount: number;
  /** The unit that is read and written. */
  readonly entriesPerChunk: number;
  readonly cleanCountMax: number;
}

const entryOffset = (index: number) => CHECKSUM_HEADER_SIZE + index * ENTRY_SIZE;

/**
 * The entries of the checksum file, by 0-based index. Clean chunks are kept up to a number, dirty ones until they are
 * written. What lies beyond `fileEnd`, in the file or not, counts as zero, so cutting entries off reads and writes nothing.
 */
export class ChecksumChunks {
  readonly #disk: Disk;
  readonly #cleanCountMax: number;
  readonly #perChunk: number;
  readonly #chunkSize: number;
  /** In order of use, the least recent first. */
  readonly #chunks = new Map<number, Chunk>();
  #latest: Chunk | undefined;
  #cleanCount = 0;
  #dirtyCount = 0;
  #fileEnd: number;
  #truncateTo: number | undefined;
  #frozen: FrozenChunks | undefined;
  #fd: number | undefined;

  constructor(disk: Disk, options: ChunkOptions) {
    assert(options.cleanCountMax >= 1, 'there is room for the chunk in use');
    this.#disk = disk;
    this.#cleanCountMax = options.cleanCountMax;
    this.#perChunk = options.entriesPerChunk;
    this.#chunkSize = options.entriesPerChunk * ENTRY_SIZE;
    this.#fd = options.fd;
    this.#fileEnd = entryOffset(options.entryCount);
    this.#truncateTo = this.#fileEnd;
  }

  get dirtyCount(): number {
    return this.#dirtyCount;
  }

  /** Whether a flush has been prepared and not written. */
  get isFrozen(): boolean {
    return this.#frozen !== undefined;
  }

  read(index: number): bigint {
    return this.#chunk(Math.floor(index / this.#perChunk)).view.getBigUint64(
      (index % this.#perChunk) * ENTRY_SIZE,
    );
  }

  write(index: number, value: bigint): void {
    const chunk = this.#writable(this.#chunk(Math.floor(index / this.#perChunk)));
    chunk.view.setBigUint64((index % this.#perChunk) * ENTRY_SIZE, value);
  }

  /** Makes all entries from `count` on zero. */
  cutAfter(count: number): void {
    const boundary = count % this.#perChunk;
    const firstGone = Math.ceil(count / this.#perChunk);
    if (boundary !== 0) {
      this.#writable(this.#chunk(Math.floor(count / this.#perChunk))).bytes.fill(0, boundary * ENTRY_SIZE);
    }
    for (const chunk of [...this.#chunks.values()]) if (chunk.index >= firstGone) this.#remove(chunk);
    this.#fileEnd = Math.min(this.#fileEnd, entryOffset(count));
    this.#truncateTo = Math.min(this.#truncateTo ?? Number.POSITIVE_INFINITY, entryOffset(count));
  }

  /** Takes what is dirty now for a flush. One at a time. */
  freeze(): FrozenChunks {
    assert(this.#frozen === undefined, 'one flush runs at a time');
    const chunks = [...this.#chunks.values()].filter(chunk => chunk.state === 'dirty');
    for (const chunk of chunks) chunk.state = 'frozen';
    this.#dirtyCount = 0;
    this.#frozen = {chunks, truncateTo: this.#truncateTo};
    this.#truncateTo = undefined;
    return this.#frozen;
  }

  /** Writes what `freeze` took to `fd`. Unless it throws, those chunks are clean afterwards, where not written to since. */
  writeFrozen(fd: number): void {
    const frozen = this.#frozen;
    assert(frozen !== undefined, 'a flush was prepared');
    this.#fd = fd;
    if (frozen.truncateTo !== undefined && this.#disk.size(fd) > frozen.truncateTo) {
      this.#disk.truncate('checksums:truncate', fd, frozen.truncateTo);
    }
    for (const chunk of frozen.chunks) {
      const offset = entryOffset(chunk.index * this.#perChunk);
      this.#disk.write('checksums:entries-write', fd, chunk.bytes, offset);
      this.#fileEnd = Math.max(this.#fileEnd, offset + this.#chunkSize);
    }
    this.#fileEnd = Math.min(this.#fileEnd, this.#truncateTo ?? Number.POSITIVE_INFINITY);
    this.#thaw('clean');
  }

  /** Gives a flush up: what it took is dirty again. Nothing happens when it was written. */
  unfreeze(): void {
    const truncateTo = this.#frozen?.truncateTo;
    if (truncateTo !== undefined) this.#truncateTo = Math.min(this.#truncateTo ?? truncateTo, truncateTo);
    this.#thaw('dirty');
  }

  /** Exclusive or of the first `count` entries. Reads them all and keeps none. */
  xor(count: number): bigint {
    let high = 0;
    let low = 0;
    const scratch = new Uint8Array(this.#chunkSize);
    for (let index = 0; index * this.#perChunk < count; index++) {
      const bytes = this.#chunks.get(index)?.bytes ?? this.#load(index, scratch);
      const view = new DataView(bytes.buffer, bytes.byteOffset, this.#chunkSize);
      const end = Math.min(this.#perChunk, count - index * this.#perChunk) * ENTRY_SIZE;
      for (let at = 0; at < end; at += ENTRY_SIZE) {
        high ^= view.getUint32(at);
        low ^= view.getUint32(at + 4);
      }
    }
    return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  }

  #chunk(index: number): Chunk {
    if (this.#latest?.index === index) return this.#latest;
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      const bytes = this.#load(index, new Uint8Array(this.#chunkSize));
      chunk = {index, bytes, view: new DataView(bytes.buffer), state: 'clean'};
      this.#cleanCount += 1;
    }
    this.#use(chunk);
    if (this.#cleanCount > this.#cleanCountMax) this.#evict();
    return chunk;
  }

  #use(chunk: Chunk): void {
    this.#chunks.delete(chunk.index);
    this.#chunks.set(chunk.index, chunk);
    this.#latest = chunk;
  }

  #load(index: number, target: Uint8Array): Uint8Array {
    const offset = entryOffset(index * this.#perChunk);
    const size = Math.max(0, Math.min(this.#chunkSize, this.#fileEnd - offset));
    const count = this.#fd === undefined ? 0 : this.#disk.read(this.#fd, target.subarray(0, size), offset);
    return target.fill(0, count);
  }

  #writable(chunk: Chunk): Chunk {
    if (chunk.state === 'dirty') return chunk;
    this.#dirtyCount += 1;
    if (chunk.state === 'clean') {
      this.#cleanCount -= 1;
      chunk.state = 'dirty';
      return chunk;
    }
    const bytes = chunk.bytes.slice();
    const copy: Chunk = {index: chunk.index, bytes, view: new DataView(bytes.buffer), state: 'dirty'};
    this.#use(copy);
    return copy;
  }

  #remove(chunk: Chunk): void {
    if (chunk.state === 'clean') this.#cleanCount -= 1;
    if (chunk.state === 'dirty') this.#dirtyCount -= 1;
    this.#chunks.delete(chunk.index);
    if (this.#latest === chunk) this.#latest = undefined;
  }

  /** Drops the clean chunk that was used longest ago. */
  #evict(): void {
    for (const chunk of this.#chunks.values()) {
      if (chunk.state !== 'clean' || chunk === this.#latest) continue;
      this.#remove(chunk);
      return;
    }
  }

  #thaw(state: 'clean' | 'dirty'): void {
    for (const chunk of this.#frozen?.chunks ?? []) {
      if (this.#chunks.get(chunk.index) !== chunk) continue;
      chunk.state = state;
      if (state === 'clean') this.#cleanCount += 1;
      else this.#dirtyCount += 1;
    }
    this.#frozen = undefined;
    for (let excess = this.#cleanCount - this.#cleanCountMax; excess > 0; excess--) this.#evict();
  }
}
