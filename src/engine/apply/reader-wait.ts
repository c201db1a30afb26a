export interface ReaderWaitOptions {
  /** Milliseconds of a clock that never goes back. */
  readonly nowMs: () => number;
  /** For how long the writer insists. */
  readonly insistMs: number;
  /** For how long it lets readers be after that. */
  readonly restMs: number;
}

/**
 * Decides whether a writer that readers keep waiting goes on holding something against them. It must, or
 * readers that overlap would keep it out for ever; but not for long, or one slow reader would be everybody's
 * problem.
 */
export class ReaderWait {
  readonly #options: ReaderWaitOptions;
  #since: number | undefined;

  constructor(options: ReaderWaitOptions) {
    this.#options = options;
  }

  /** Asked after each vain attempt. */
  doesInsist(): boolean {
    const {nowMs, insistMs, restMs} = this.#options;
    const now = nowMs();
    this.#since ??= now;
    if (now - this.#since >= insistMs + restMs) this.#since = now;
    return now - this.#since < insistMs;
  }

  /** The writer got what it wanted. */
  done(): void {
    this.#since = undefined;
  }
}
