import type {Txid} from '../ltx/position.ts';

/** Who needs a part of the logs: one session. */
export interface LogReader {
  /** Up to which txid (inclusive) this reader has the database; `undefined`: it needs nothing of the log. */
  neededAfter(id: string): Txid | undefined;
}

const FLUSH_DELAY_MS = 100;

/** Joins what all sessions need of each database's log, and reports it now and then, for retention. */
export class NeededLog {
  readonly #readers: ReadonlySet<LogReader>;
  readonly #report: (needed: ReadonlyMap<string, Txid>) => void;
  readonly #needed = new Map<string, Txid>();
  readonly #changed = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(readers: ReadonlySet<LogReader>, report: (needed: ReadonlyMap<string, Txid>) => void) {
    this.#readers = readers;
    this.#report = report;
  }

  /** What some reader needs of database `id` has changed. `isUrgent`: report it before going on. */
  touch(id: string, isUrgent: boolean): void {
    this.#changed.add(id);
    if (isUrgent) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), FLUSH_DELAY_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    let hasChanged = false;
    for (const id of this.#changed) {
      const after = this.#lowest(id);
      if (after === this.#needed.get(id)) continue;
      hasChanged = true;
      if (after === undefined) this.#needed.delete(id);
      else this.#needed.set(id, after);
    }
    this.#changed.clear();
    if (hasChanged) this.#report(new Map(this.#needed));
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#report(new Map());
  }

  #lowest(id: string): Txid | undefined {
    let lowest: Txid | undefined;
    for (const reader of this.#readers) {
      const after = reader.neededAfter(id);
      if (after !== undefined && (lowest === undefined || after < lowest)) lowest = after;
    }
    return lowest;
  }
}
