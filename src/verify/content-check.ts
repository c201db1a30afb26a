import type {PageHasher} from '../ltx/checksum.ts';
import {CHECKSUM_FLAG, formatPosition} from '../ltx/position.ts';
import type {ExpectedContent} from './checksum-replay.ts';
import {filePageCount, filePages, type JournalContent, readHeader, type WalContent} from './content.ts';
import type {DirtyList} from './dirty-list.ts';
import {type Finding, guarded, note, noteIf, violation} from './finding.ts';
import type {InputFile, InputFolder} from './input-folder.ts';
import type {LeftBehind} from './left-behind.ts';
import {PageRanges} from './page-ranges.ts';

const RANGES_MAX = 10_000;

export interface ContentCheckOptions {
  readonly folder: InputFolder;
  /** Path of the database file. */
  readonly path: string;
  readonly checksumsPath: string;
  readonly left: LeftBehind;
  readonly hasher: PageHasher;
  readonly lockPgno: number;
  readonly expected: ExpectedContent;
  readonly journal: JournalContent;
  readonly wal: WalContent;
  readonly dirty: DirtyList;
}

/** Compares every page, as SQLite would see it, with what the log says. */
export function* checkContent(options: ContentCheckOptions): Generator<Finding> {
  const {folder, path, expected} = options;
  yield* guarded(path, function* () {
    const file = folder.open(path);
    if (file === undefined) {
      if (expected.commit > 0)
        yield violation('FILE_MISSING', path, `Database file is missing: it has ${expected.commit} pages`, {
          commit: expected.commit,
        });
      return;
    }
    try {
      yield* checkShape(options, file);
      yield* checkPages(options, file);
    } finally {
      file.close();
    }
  });
}

function* checkShape(options: ContentCheckOptions, file: InputFile): Generator<Finding> {
  const {path, left, expected, journal, wal} = options;
  const {pageSize, commit} = expected;
  const header = readHeader(file);
  const isOverlaid = wal.sums.get(1) !== 0n || journal.sums.get(1) !== 0n;
  if (header !== undefined && header.pageSize !== pageSize && !isOverlaid) {
    const message = `Database has pages of ${header.pageSize} bytes, the log of ${pageSize}`;
    yield noteIf(left === 'rebooted' || isAnyDirty(options), 'PAGE_SIZE_MISMATCH', path, message, {
      pageSize: header.pageSize,
      expected: pageSize,
    });
  }
  const pageCount = wal.pageCount ?? journal.pageCount ?? filePageCount(file, pageSize);
  if (pageCount === commit) return;
  const detail = {pageCount, commit};
  if (isAnyExplained(options))
    yield recovery(path, `Database has ${pageCount} pages and the log ${commit}`, detail);
  else
    yield violation(
      'PAGE_COUNT_MISMATCH',
      path,
      `Database has ${pageCount} pages, the log says ${commit}`,
      detail,
    );
}

function* checkPages(options: ContentCheckOptions, file: InputFile): Generator<Finding> {
  const {path, left, expected} = options;
  const differing = new PageRanges(RANGES_MAX);
  let explainedCount = 0;
  let contentSum = 0n;
  for (const [pgno, sum] of pageChecksums(options, file)) {
    contentSum ^= sum;
    const known = expected.sums.get(pgno);
    if (known === sum || (known === 0n && !expected.isComplete)) continue;
    if (isExplained(options, pgno)) explainedCount++;
    else differing.add(pgno);
  }
  if (explainedCount > 0)
    yield recovery(path, `${explainedCount} pages differ from the log's`, {pageCount: explainedCount, left});
  const {checksum} = expected.position;
  const isContentRight = (CHECKSUM_FLAG | contentSum) === checksum;
  const isTableRight = !expected.isComplete || (CHECKSUM_FLAG | expected.sums.xor()) === checksum;
  if (!isTableRight) {
    yield violation(
      'CHECKSUMS_MISMATCH',
      options.checksumsPath,
      `Page checksums do not add up to ${formatPosition(expected.position)}`,
    );
  }
  yield* reportPages(options, differing, isContentRight && !isTableRight);
  if (isContentRight || differing.pageCount > 0 || explainedCount > 0) return;
  const message = `All pages together do not have the checksum of ${formatPosition(expected.position)}`;
  if (isAnyExplained(options)) yield recovery(path, message, {});
  else yield violation('CONTENT_MISMATCH', path, message);
}

function* reportPages(
  options: ContentCheckOptions,
  differing: PageRanges,
  isTableWrong: boolean,
): Generator<Finding> {
  for (const {first, last} of differing) {
    const pages = first === last ? `Page ${first}` : `Pages ${first} to ${last}`;
    const detail = {firstPgno: first, lastPgno: last};
    if (isTableWrong)
      yield violation(
        'CHECKSUMS_BAD_ENTRY',
        options.checksumsPath,
        `${pages}: right in the database, and another checksum in the table`,
        detail,
      );
    else yield violation('PAGE_MISMATCH', options.path, `${pages}: not what the log says`, detail);
  }
  if (!differing.isWhole) {
    yield violation(
      'PAGE_MISMATCH',
      options.path,
      `${differing.pageCount} pages differ, of which only the first are listed`,
      {pageCount: differing.pageCount},
    );
  }
}

/** Number and checksum of each page that there should be, as SQLite would see it. */
function* pageChecksums(
  options: ContentCheckOptions,
  file: InputFile,
): Generator<readonly [pgno: number, checksum: bigint]> {
  const {expected, journal, wal, hasher, lockPgno} = options;
  const {pageSize, commit, sums} = expected;
  // A size that nothing bears out must not keep us busy.
  const inFile = Math.ceil(file.size / pageSize);
  const count = Math.min(commit, Math.max(inFile, sums.pgnoMax, wal.sums.pgnoMax, journal.sums.pgnoMax));
  const overlaid = (pgno: number) => wal.sums.get(pgno) || journal.sums.get(pgno);
  for (let pgno = 1; pgno <= count; pgno++) {
    const sum = overlaid(pgno);
    if (sum !== 0n) yield [pgno, sum];
  }
  const isSkipped = (pgno: number) => pgno === lockPgno || overlaid(pgno) !== 0n;
  for (const {pgno, page} of filePages(file, pageSize, count, isSkipped))
    yield [pgno, hasher.checksum(pgno, page)];
}

/** Whether a recovery at the next start makes a transaction of the page, or overwrites it. */
function isExplained({left, dirty, journal, wal, expected}: ContentCheckOptions, pgno: number): boolean {
  switch (left) {
    case 'rebooted':
      return true;
    case 'following':
      return expected.lagging.get(pgno) !== 0n;
    case 'daemon-died':
      if (wal.unlogged.get(pgno) !== 0n || journal.isUncertain) return true;
      return journal.pageCount === undefined && (dirty.isUnknown || dirty.pages.has(pgno));
    case 'closed':
    case 'touched':
      return false;
  }
}

/** Whether a recovery may change the size of the database. */
function isAnyExplained(options: ContentCheckOptions): boolean {
  const {left, journal, wal, expected} = options;
  switch (left) {
    case 'rebooted':
      return true;
    case 'following':
      return expected.lagging.pgnoMax > 0;
    case 'daemon-died':
      return wal.unlogged.pgnoMax > 0 || journal.isUncertain || isAnyDirty(options);
    case 'closed':
    case 'touched':
      return false;
  }
}

function isAnyDirty({left, journal, dirty}: ContentCheckOptions): boolean {
  return (
    left === 'daemon-died' &&
    journal.pageCount === undefined &&
    (dirty.isUnknown || dirty.pages.pageCount > 0)
  );
}

function recovery(path: string, what: string, detail: Readonly<Record<string, unknown>>): Finding {
  return note('NEEDS_RECOVERY', path, `${what}: the next start mends that`, detail);
}
