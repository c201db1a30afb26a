import type {Disk} from '../../lib/disk.ts';
import {type FileMapping, mmapShared, systemPageSize} from '../../lib/libc.ts';

/** SQLite grows and maps the `-shm` file in pieces of this many bytes (2.3.1 The WAL-Index File Format). */
export const SHM_SEGMENT_SIZE = 32_768;

/**
 * The mounted `-shm` file in memory, shared with every process that has the database open. Nobody truncates
 * it while the DMS lock is held, so a segment once mapped stays good until `unmap`.
 */
export class ShmMapping {
  readonly #disk: Disk;
  readonly #fd: number;
  readonly #mapSize: number;
  readonly #mappings: FileMapping[] = [];
  readonly #segments: Uint8Array[] = [];

  constructor(disk: Disk, fd: number) {
    this.#disk = disk;
    this.#fd = fd;
    // On machines whose pages are larger than a segment one mapping holds several.
    this.#mapSize = Math.max(SHM_SEGMENT_SIZE, systemPageSize());
  }

  /**
   * The bytes of segment `index`, made first if the file is shorter. They must not be touched after `unmap`.
   */
  segment(index: number): Uint8Array {
    while (this.#segments.length <= index) this.#mapNext();
    return this.#segments[index];
  }

  unmap(): void {
    this.#segments.length = 0;
    for (const mapping of this.#mappings.splice(0)) mapping.unmap();
  }

  #mapNext(): void {
    const start = this.#mappings.length * this.#mapSize;
    this.#grow(start + this.#mapSize);
    const mapping = mmapShared(this.#fd, start, this.#mapSize);
    this.#mappings.push(mapping);
    for (let offset = 0; offset < this.#mapSize; offset += SHM_SEGMENT_SIZE) {
      this.#segments.push(new Uint8Array(mapping.buffer, offset, SHM_SEGMENT_SIZE));
    }
  }

  /**
   * Writes real zeros: in a file with holes, a full disk would show as SIGBUS when a reader sets its mark.
   */
  #grow(size: number): void {
    const sizeNow = this.#disk.size(this.#fd);
    if (sizeNow < size) {
      this.#disk.write('follower-shm:grow', this.#fd, new Uint8Array(size - sizeNow), sizeNow);
    }
  }
}
