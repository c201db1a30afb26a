import type {DemoNode} from './node.ts';
import type {Program} from './program.ts';

const POSITION_CHARS = 33;

/** A program that prints its running total of transactions, and the node in whose mount it works. */
export interface Worker {
  readonly node: DemoNode;
  readonly action: 'write' | 'read';
  readonly language: string;
  readonly program: Program;
}

interface NodeState {
  readonly node: DemoNode;
  readonly position: string | undefined;
  readonly lagMs: number | undefined;
}

/** Prints what each node does: one line a node and call, with rates since the call before. */
export class Board {
  readonly #print: (line: string) => void;
  readonly #workers: readonly Worker[];
  readonly #totals = new Map<Worker, number>();
  #lastMs: number;
  readonly #startMs: number;

  constructor(workers: readonly Worker[], print: (line: string) => void) {
    this.#workers = workers;
    this.#print = print;
    this.#startMs = performance.now();
    this.#lastMs = this.#startMs;
  }

  /** What all workers of `action` have done so far. */
  total(action: Worker['action']): number {
    const workers = this.#workers.filter(worker => worker.action === action);
    return workers.reduce((sum, worker) => sum + Number(worker.program.lastLine), 0);
  }

  print(states: readonly NodeState[]): void {
    const nowMs = performance.now();
    const elapsedS = (nowMs - this.#lastMs) / 1000;
    this.#lastMs = nowMs;
    const time = `${Math.round((nowMs - this.#startMs) / 1000)} s`.padStart(5);
    for (const {node, position, lagMs} of states) {
      const place = `${node.name.padEnd(11)} ${(position ?? 'no position yet').padEnd(POSITION_CHARS)}`;
      const lag = node.isPrimary ? '' : `  lag ${lagMs ?? '?'} ms`.padEnd(13);
      this.#print(
        `${time}  ${place}${lag}${this.#rates(node, 'read', elapsedS)}${this.#rates(node, 'write', elapsedS)}`,
      );
    }
  }

  #rates(node: DemoNode, action: Worker['action'], elapsedS: number): string {
    const workers = this.#workers.filter(worker => worker.node === node && worker.action === action);
    if (workers.length === 0) return '';
    let sum = 0;
    const parts: string[] = [];
    for (const worker of workers) {
      const total = Number(worker.program.lastLine);
      const rate = (total - (this.#totals.get(worker) ?? 0)) / elapsedS;
      this.#totals.set(worker, total);
      sum += rate;
      parts.push(`${worker.language} ${formatCount(rate)}`);
    }
    return `  ${formatCount(sum)} ${action}s/s (${parts.join(', ')})`;
  }
}

export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}
