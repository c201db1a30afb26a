const INITIAL_SIZE = 8 * 1024;

/** Largest single write to a segment, in bytes. */
export const TAIL_BUFFER_SIZE_MAX = 256 * 1024;

/**
 * Gathers a record's bytes into few large writes: one, if the record is small. The buffer grows to what
 * records need and is kept for the next one.
 */
export class TailBuffer {
  #bytes = new Uint8Array(INITIAL_SIZE);
  #used = 0;
  #position = 0;
  #write: (bytes: Uint8Array, position: number) => void = () => {};

  /** Begins a record at `position` of the file that `write` writes to. */
  start(position: number, write: (bytes: Uint8Array, position: number) => void): void {
    this.#position = position;
    this.#write = write;
    this.#used = 0;
  }

  append(chunk: Uint8Array): void {
    let done = 0;
    while (chunk.length - done > this.#bytes.length - this.#used) {
      if (this.#bytes.length < TAIL_BUFFER_SIZE_MAX) {
        this.#grow();
        continue;
      }
      const count = this.#bytes.length - this.#used;
      this.#bytes.set(chunk.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
      this.flush();
    }
    this.#bytes.set(done === 0 ? chunk : chunk.subarray(done), this.#used);
    this.#used += chunk.length - done;
  }

  /** Writes what has been gathered. */
  flush(): void {
    if (this.#used === 0) return;
    this.#write(this.#bytes.subarray(0, this.#used), this.#position);
    this.#position += this.#used;
    this.#used = 0;
  }

  #grow(): void {
    const larger = new Uint8Array(Math.min(this.#bytes.length * 2, TAIL_BUFFER_SIZE_MAX));
    larger.set(this.#bytes.subarray(0, this.#used));
    this.#bytes = larger;
  }
}
