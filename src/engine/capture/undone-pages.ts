/** Whoever began the WAL anew, or wrote over frames, commits within this time or not at all. */
const WAIT_MS = 250;

/**
 * Pages of transactions in the log that perhaps never were. The next transaction in the WAL carries them as they are;
 * without one they are compared after a while.
 */
export class UndonePages {
  readonly #nowMs: () => number;
  #chunks: Uint32Array[] = [];
  #count = 0;
  #sinceMs = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** A page may be in it more than once. */
  get count(): number {
    return this.#count;
  }

  add(pgnos: Uint32Array): void {
    if (pgnos.length === 0) return;
    this.#chunks.push(pgnos);
    this.#count += pgnos.length;
    this.#sinceMs = this.#nowMs();
  }

  get isDue(): boolean {
    return this.#count > 0 && this.#nowMs() - this.#sinceMs >= WAIT_MS;
  }

  takeAll(): readonly Uint32Array[] {
    const chunks = this.#chunks;
    this.#chunks = [];
    this.#count = 0;
    return chunks;
  }
}
