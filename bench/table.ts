import type {Machine} from './machine.ts';
import {type Check, type Column, isReached, type Row} from './measurement.ts';

export interface Report {
  readonly machine: Machine;
  readonly rows: readonly Row[];
  /** Measurements that ended with an error. */
  readonly failures: readonly {readonly name: string; readonly text: string}[];
  readonly peerMissing?: string;
  readonly isQuick: boolean;
}

const columnTitles: readonly (readonly [column: Column, title: string])[] = [
  ['bare', 'bare disk'],
  ['peer', 'fuse-native'],
  ['alone', 'FerriteFS'],
  ['cluster', 'with a follower'],
];

const formatter = new Intl.NumberFormat('en', {maximumSignificantDigits: 3});

function format(value: number | undefined): string {
  if (value === undefined) return '';
  return Number.isNaN(value)
    ? '?'
    : value >= 1000
      ? Math.round(value).toLocaleString('en')
      : formatter.format(value);
}

function formatCheck(check: Check): string {
  const unit = check.unit === '' ? '' : ` ${check.unit}`;
  const sign = check.isUpperBound ? '≤' : '≥';
  return `${check.what} ${format(check.value)}${unit} (${sign} ${format(check.bound)}): ${isReached(check) ? 'yes' : 'NO'}`;
}

function cellsOf(row: Row): string[] {
  const values = columnTitles.map(([column]) => format(row.columns[column]));
  return [row.title, row.unit, ...values, row.checks.map(formatCheck).join('; '), row.note ?? ''];
}

const heads = ['', 'unit', ...columnTitles.map(([, title]) => title), 'must reach', 'note'];
const numberColumns = new Set(columnTitles.map((_, i) => i + 2));

/** What stands below the table. */
function remarks({machine, peerMissing, isQuick, failures}: Report): string[] {
  const {date, cpu, cpuCount, kernel, node, disk, loadBefore} = machine;
  return [
    `${date}, ${cpuCount} × ${cpu}, Linux ${kernel}, Node ${node}, ${disk}, load average before: ${loadBefore.toFixed(2)}`,
    ...(isQuick ? ['A quick run: small sizes, few rounds, no result to rely on.'] : []),
    ...(peerMissing === undefined ? [] : [`fuse-native was left out: ${peerMissing}`]),
    ...failures.map(({name, text}) => `FAILED ${name}: ${text}`),
  ];
}

export function renderText(report: Report): string {
  const lines = [heads, ...report.rows.map(cellsOf)];
  const widths = heads.map((_, i) => Math.max(...lines.map(cells => [...cells[i]].length)));
  const text = lines.map(cells =>
    cells
      .map((cell, i) => (numberColumns.has(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join('  ')
      .trimEnd(),
  );
  return `${[...text, '', ...remarks(report)].join('\n')}\n`;
}

export function renderMarkdown(report: Report): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const rule = heads.map((_, i) => (numberColumns.has(i) ? '---:' : '---'));
  const table = [heads, rule, ...report.rows.map(cellsOf)].map(line);
  return `${[...table, '', ...remarks(report).map(text => `${text}\n`)].join('\n').trimEnd()}\n`;
}

export function renderJson(report: Report): string {
  const rows = report.rows.map(row => ({
    ...row,
    checks: row.checks.map(check => ({...check, isReached: isReached(check)})),
  }));
  return `${JSON.stringify({...report, rows}, null, 2)}\n`;
}

const START = '<!-- bench:start -->';
const END = '<!-- bench:end -->';

/** `readme` with the table between the markers. Throws where a marker is missing. */
export function withTable(readme: string, report: Report): string {
  const [start, end] = [readme.indexOf(START), readme.indexOf(END)];
  if (start < 0 || end < start) throw new Error(`Cannot update README.md: "${START}" or "${END}" is missing`);
  return `${readme.slice(0, start + START.length)}\n${renderMarkdown(report)}${readme.slice(end)}`;
}
