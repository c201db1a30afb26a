import type {Sizes} from './options.ts';
import type {Rig} from './rig.ts';

/** What a row is about to be judged by: the value, in the unit of `text`, and its bound. */
export interface Check {
  readonly what: string;
  readonly value: number;
  readonly bound: number;
  readonly isUpperBound: boolean;
  readonly unit: string;
}

export type Column = 'bare' | 'peer' | 'alone' | 'cluster';

/** A line of the table. Columns that a measurement has no value for are left out. */
export interface Row {
  readonly title: string;
  readonly unit: string;
  readonly columns: Readonly<Partial<Record<Column, number>>>;
  readonly checks: readonly Check[];
  /** What else has to be known to read the line. */
  readonly note?: string;
}

export interface Measurement {
  readonly name: string;
  run(rig: Rig, sizes: Sizes): Promise<Row[]>;
}

export function atLeast(what: string, value: number, bound: number, unit = ''): Check {
  return {what, value, bound, isUpperBound: false, unit};
}

export function atMost(what: string, value: number, bound: number, unit = ''): Check {
  return {what, value, bound, isUpperBound: true, unit};
}

export function isReached({value, bound, isUpperBound}: Check): boolean {
  return isUpperBound ? value <= bound : value >= bound;
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which the fraction `q` of `values` lies; NaN where there are none. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)];
  const high = sorted[Math.ceil(at)];
  return sorted.length === 0 ? Number.NaN : low + (high - low) * (at - Math.floor(at));
}
