import type {FsEvent} from '../engine/messages.ts';
import type {Position} from '../ltx/position.ts';
import type {FuzzySnapshot} from './replication-source.ts';

type SnapshotEvent = Extract<FsEvent, {type: 'snapshot-start' | 'snapshot-pages' | 'snapshot-done'}>;
type PageRun = {readonly pgno: number; readonly pages: Uint8Array};

/** Runs of pages that the fs thread sends, handed on one by one; a run that was taken lets it send another. */
export class SnapshotStream {
  readonly #more: () => void;
  readonly #end: () => void;
  readonly #runs: PageRun[] = []; // Bounded by the runs that the fs thread may send unasked.
  #start: Extract<SnapshotEvent, {type: 'snapshot-start'}> | undefined;
  #done: Extract<SnapshotEvent, {type: 'snapshot-done'}> | undefined;
  #wake: () => void = () => undefined;
  #isEnded = false;

  constructor(more: () => void, end: () => void) {
    this.#more = more;
    this.#end = end;
  }

  hear(event: SnapshotEvent): void {
    if (event.type === 'snapshot-start') this.#start = event;
    else if (event.type === 'snapshot-pages') this.#runs.push({pgno: event.pgno, pages: event.pages});
    else this.#done = event;
    this.#wake();
  }

  /** Waits for the first event. `undefined`: there is nothing to send. */
  async started(signal: AbortSignal): Promise<FuzzySnapshot | undefined> {
    signal.addEventListener('abort', () => this.#wake(), {once: true});
    while (this.#start === undefined && this.#done === undefined && !signal.aborted) await this.#changed();
    const start = this.#start;
    if (start === undefined) {
      this.#close();
      return undefined;
    }
    const {from, fromTerm, pageSize, pageCount} = start;
    return {
      from,
      fromTerm,
      pageSize,
      pageCount,
      chunks: this.#chunks(signal),
      until: () => this.#until(),
      close: async () => this.#close(),
    };
  }

  /** Not left to the end of `#chunks`: a generator that was never begun has none. */
  #close(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#end();
    this.#wake();
  }

  #until(): Position {
    const until = this.#done?.until;
    if (until === undefined)
      throw new Error('Cannot finish snapshot: the database changed its shape or was dropped');
    return until;
  }

  async *#chunks(signal: AbortSignal): AsyncGenerator<PageRun> {
    for (;;) {
      const run = this.#runs.shift();
      if (run !== undefined) {
        this.#more();
        yield run;
      } else if (this.#done !== undefined) {
        this.#until();
        return;
      } else if (signal.aborted || this.#isEnded)
        throw new Error('Cannot go on with snapshot: the stream has ended');
      else await this.#changed();
    }
  }

  #changed(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = resolve;
    });
  }
}
