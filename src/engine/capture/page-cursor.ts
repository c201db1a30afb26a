import type {Slices} from './record-job.ts';

/** Pages that are sorted at once: a millisecond or two. */
const RUN_LENGTH = 16_384;
/** Most transactions are small. */
const RUN_LENGTH_MIN = 64;
const NO_FRAME = -1;

/** Sorted: page number times RUN_LENGTH plus the index, so that of equal pages the latest comes last. */
interface Run {
  readonly keys: Float64Array;
  /** Frame of index 0, or NO_FRAME where the pages are in no frame. */
  readonly firstFrame: number;
  next: number;
}

/**
 * Goes through many pages in ascending order, each once, with the last frame that was given for it. Sorts short runs
 * and merges them on the way, so that hundreds of thousands of pages never stall the thread.
 */
export class PageCursor {
  readonly #runs: Run[] = [];
  #pgno = 0;
  #frame = NO_FRAME;

  /** A cursor over `pgnos`; where `firstFrame` is given they are those of the frames from there on. */
  static *over(pgnos: Iterable<number>, firstFrame = NO_FRAME): Slices<PageCursor> {
    const cursor = new PageCursor();
    yield* cursor.add(pgnos, firstFrame);
    cursor.advance();
    return cursor;
  }

  /** Adds pages before the first `advance`. Frames must be added in ascending order. */
  *add(pgnos: Iterable<number>, firstFrame = NO_FRAME): Slices<void> {
    let keys = new Float64Array(RUN_LENGTH_MIN);
    let count = 0;
    let frame = firstFrame;
    for (const pgno of pgnos) {
      if (count === keys.length) keys = grown(keys);
      keys[count] = pgno * RUN_LENGTH + count;
      if (++count < RUN_LENGTH) continue;
      this.#addRun(keys, frame);
      if (frame !== NO_FRAME) frame += count;
      keys = new Float64Array(RUN_LENGTH_MIN);
      count = 0;
      yield;
    }
    if (count > 0) this.#addRun(keys.slice(0, count), frame);
  }

  /** The current page, or infinity behind the last. */
  get pgno(): number {
    return this.#pgno;
  }

  /** The frame of the current page, or -1. */
  get frame(): number {
    return this.#frame;
  }

  /** Goes to the next page. */
  advance(): void {
    let least = Number.POSITIVE_INFINITY;
    for (const run of this.#runs) least = Math.min(least, pgnoAt(run));
    this.#pgno = least;
    this.#frame = NO_FRAME;
    if (least === Number.POSITIVE_INFINITY) return;
    for (const run of this.#runs) {
      for (; pgnoAt(run) === least; run.next++) {
        if (run.firstFrame !== NO_FRAME) this.#frame = run.firstFrame + (run.keys[run.next] % RUN_LENGTH);
      }
    }
  }

  /** The frame of `pgno`, or -1. Pages must be asked for in ascending order. */
  seek(pgno: number): number {
    while (this.#pgno < pgno) this.advance();
    return this.#pgno === pgno ? this.#frame : NO_FRAME;
  }

  #addRun(keys: Float64Array, firstFrame: number): void {
    this.#runs.push({keys: keys.sort(), firstFrame, next: 0});
  }
}

function grown(keys: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(Math.min(RUN_LENGTH, 4 * keys.length));
  larger.set(keys);
  return larger;
}

function pgnoAt({keys, next}: Run): number {
  return next < keys.length ? Math.floor(keys[next] / RUN_LENGTH) : Number.POSITIVE_INFINITY;
}
