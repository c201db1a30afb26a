export interface PageRange {
  readonly first: number;
  readonly last: number;
}

/** Page numbers, as ranges, in the order in which they were added. Consecutive ones take no room. */
export class PageRanges {
  readonly #ranges: {first: number; last: number}[] = [];
  readonly #countMax: number;
  #pageCount = 0;
  #isWhole = true;
  #sorted: readonly PageRange[] | undefined;

  constructor(countMax: number) {
    this.#countMax = countMax;
  }

  /** Number of pages, those included that there was no room for. */
  get pageCount(): number {
    return this.#pageCount;
  }

  /** Whether there was room for all. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  add(first: number, count = 1): void {
    if (count <= 0) return;
    this.#pageCount += count;
    this.#sorted = undefined;
    const range = this.#ranges.at(-1);
    if (range?.last === first - 1) range.last += count;
    else if (this.#ranges.length < this.#countMax) this.#ranges.push({first, last: first + count - 1});
    else this.#isWhole = false;
  }

  has(pgno: number): boolean {
    if (!this.#isWhole) return true;
    this.#sorted ??= sortRanges(this.#ranges);
    const sorted = this.#sorted;
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle].last < pgno) low = middle + 1;
      else high = middle;
    }
    return low < sorted.length && sorted[low].first <= pgno;
  }

  [Symbol.iterator](): Iterator<PageRange> {
    return this.#ranges.values();
  }
}

/** In ascending order, those that overlap or touch made one. */
function sortRanges(ranges: readonly PageRange[]): readonly PageRange[] {
  const sorted: {first: number; last: number}[] = [];
  for (const {first, last} of [...ranges].sort((a, b) => a.first - b.first)) {
    const before = sorted.at(-1);
    if (before !== undefined && first <= before.last + 1) before.last = Math.max(before.last, last);
    else sorted.push({first, last});
  }
  return sorted;
}
