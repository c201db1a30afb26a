/** `small` fits one frame; `bulk` takes its turn frame by frame. */
export type Weight = 'small' | 'bulk';

/** Small turns in a row after which one bulk turn is due, so that neither starves the other. */
const SMALL_TURNS_MAX = 8;

/** Leave to work on one database; `release` gives the place back, and may be called once. */
export interface WorkPermit {
  readonly id: string;
  readonly weight: Weight;
  release(): void;
}

/**
 * The databases of one follower for which something is to be done, first come first served within their weight, and
 * the bound on how many are worked on at the same time.
 */
export class WorkQueue {
  readonly #waiting: Readonly<Record<Weight, Set<string>>> = {small: new Set(), bulk: new Set()};
  readonly #running: Record<Weight, number> = {small: 0, bulk: 0};
  readonly #max: Readonly<Record<Weight, number>>;

  constructor(max: Readonly<Record<Weight, number>>) {
    this.#max = max;
  }

  get waitingCount(): number {
    return this.#waiting.small.size + this.#waiting.bulk.size;
  }

  /** Queues `id` once: a database that waits already keeps its place, unless its weight has changed. */
  add(id: string, weight: Weight): void {
    this.#waiting[weight === 'small' ? 'bulk' : 'small'].delete(id);
    this.#waiting[weight].add(id);
  }

  remove(id: string): void {
    this.#waiting.small.delete(id);
    this.#waiting.bulk.delete(id);
  }

  take(): WorkPermit | undefined {
    return this.#takeOf('small') ?? this.#takeOf('bulk');
  }

  #takeOf(weight: Weight): WorkPermit | undefined {
    if (this.#running[weight] >= this.#max[weight]) return undefined;
    const [id] = this.#waiting[weight];
    if (id === undefined) return undefined;
    this.#waiting[weight].delete(id);
    this.#running[weight]++;
    let isReleased = false;
    const release = () => {
      if (!isReleased) this.#running[weight]--;
      isReleased = true;
    };
    return {id, weight, release};
  }
}

/** One frame that waits to be sent. `send` runs when its turn has come, if `isAllowed` then holds. */
export interface Turn {
  readonly weight: Weight;
  isAllowed(): boolean;
  send(): void;
}

interface Waiter {
  readonly turn: Turn;
  readonly settle: () => void;
}

/**
 * Lets transfers send one frame after the other. Each transfer waits with at most one frame, so first come first
 * served makes them take turns.
 */
export class TurnQueue {
  readonly #waiters: Readonly<Record<Weight, Waiter[]>> = {small: [], bulk: []};
  #smallStreak = 0;

  /** Resolves when the frame was sent. Rejects with the signal's reason when that aborts first. */
  async wait(turn: Turn, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const waiters = this.#waiters[turn.weight];
    await new Promise<void>((resolve, reject) => {
      const settle = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      const waiter = {turn, settle};
      const onAbort = () => {
        waiters.splice(waiters.indexOf(waiter), 1);
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, {once: true});
      waiters.push(waiter);
    });
  }

  /** Sends the next frame that may be sent. False: there is none. */
  grant(): boolean {
    const order: readonly Weight[] =
      this.#smallStreak < SMALL_TURNS_MAX ? ['small', 'bulk'] : ['bulk', 'small'];
    for (const weight of order) {
      const waiters = this.#waiters[weight];
      const index = waiters.findIndex(waiter => waiter.turn.isAllowed());
      if (index === -1) continue;
      const [waiter] = waiters.splice(index, 1);
      this.#smallStreak = weight === 'small' ? this.#smallStreak + 1 : 0;
      waiter.turn.send();
      waiter.settle();
      return true;
    }
    return false;
  }
}
