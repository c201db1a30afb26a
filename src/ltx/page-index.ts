import {putUvarint, UVARINT_SIZE_MAX} from './varint.ts';

/**
 * The page index: for each page its number, the offset of its frame in the record and the frame's size, as
 * varints; a zero byte; and the size of all that, 8 bytes big-endian. Frames determine it completely, so readers
 * build it too, and compare. Memory: about 8 bytes a page.
 */
export class PageIndex {
  #bytes = new Uint8Array(64);
  #size = 0;

  add(pgno: number, offset: number, frameSize: number): void {
    if (this.#size + 3 * UVARINT_SIZE_MAX > this.#bytes.length) this.#grow();
    this.#size = putUvarint(this.#bytes, this.#size, pgno);
    this.#size = putUvarint(this.#bytes, this.#size, offset);
    this.#size = putUvarint(this.#bytes, this.#size, frameSize);
  }

  /** The whole index with its terminator and size, as a view. Nothing may be added afterwards. */
  finish(): Uint8Array {
    if (this.#size + 9 > this.#bytes.length) this.#grow();
    const bytes = this.#bytes;
    bytes[this.#size] = 0;
    const size = this.#size + 1;
    const view = new DataView(bytes.buffer);
    view.setUint32(size, Math.floor(size / 0x1_0000_0000));
    view.setUint32(size + 4, size);
    return bytes.subarray(0, size + 8);
  }

  #grow(): void {
    const bytes = new Uint8Array(2 * this.#bytes.length);
    bytes.set(this.#bytes);
    this.#bytes = bytes;
  }
}
