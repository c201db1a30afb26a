import type {DatabaseSummary} from '../engine/catalog.ts';
import type {Crc64Factory} from '../ltx/crc64.ts';
import {
  EMPTY_POSITION,
  equalPositions,
  formatPosition,
  type Position,
  parsePosition,
} from '../ltx/position.ts';
import {ChecksumReplay, type ExpectedContent, loadChecksums} from './checksum-replay.ts';
import {readJournal, readWal} from './content.ts';
import {checkContent} from './content-check.ts';
import {decodeDirtyList} from './dirty-list.ts';
import {type Finding, guarded, note, noteIf, tried, violation} from './finding.ts';
import type {InputFolder} from './input-folder.ts';
import {isClosed, type LeftBehind} from './left-behind.ts';
import {checkLog, type LogEnd} from './log-check.ts';
import {makeRecordTools} from './segment-check.ts';

export interface DatabaseCheckOptions {
  readonly folder: InputFolder;
  readonly id: string;
  readonly name: string;
  /** Where the catalog says that the database stood when it was closed. */
  readonly summary: DatabaseSummary | undefined;
  readonly left: LeftBehind;
  readonly crc64: Crc64Factory;
  readonly lockPgno: (pageSize: number) => number;
  readonly pendingByte: number | undefined;
}

const KNOWN_NAMES: ReadonlySet<string> = new Set(['log', 'checksums', 'dirty', 'seal', 'position']);

/** Checks one database: log, page checksums, and every page. Memory: 8 bytes a page, and as much for the largest record. */
export function* checkDatabase(options: DatabaseCheckOptions): Generator<Finding> {
  const {folder, id, left, name} = options;
  const directory = `databases/${id}`;
  const names = yield* tried(directory, () => folder.list(directory));
  if (names === undefined) {
    yield violation('FILE_MISSING', directory, `Folder of the database "${name}" is missing`, {id, name});
    return;
  }
  for (const entry of names) {
    if (!KNOWN_NAMES.has(entry))
      yield note('FILE_UNKNOWN', `${directory}/${entry}`, 'Nothing is known of this file');
  }
  yield* describeLeft(options);
  const position = yield* readPosition(options, directory);
  const dirty = decodeDirtyList(
    yield* tried(`${directory}/dirty`, () => folder.readAll(`${directory}/dirty`)),
  );
  const checksumsPath = `${directory}/checksums`;
  const {header, sums} = yield* loadChecksums(folder, checksumsPath, left);
  const tools = makeRecordTools(options.crc64, options.lockPgno);
  const pendingTxid = left === 'daemon-died' ? dirty.pendingTxid : 0n;
  const replay = new ChecksumReplay({
    header,
    sums,
    applied: position,
    pendingTxid,
    wantsLast: left === 'daemon-died',
  });
  const logPath = `${directory}/log`;
  const end = yield* guarded(logPath, () => checkLog({folder, path: logPath, left, tools, visitor: replay}));
  if (end === undefined) return;
  yield* checkSummary(options, end, `${directory}/log`);
  const path = `files/${name}`;
  const content = {
    folder,
    path,
    pageSize: header?.pageSize ?? end.last?.pageSize ?? 0,
    left,
    hasher: tools.hasher,
    pendingByte: options.pendingByte,
  };
  const journal = yield* readJournal(content);
  const expected = yield* replay.finish(end, journal.isInUse, {
    checksums: checksumsPath,
    position: `${directory}/position`,
  });
  if (expected === undefined || isCopyNeeded(left, header !== undefined, expected)) {
    const isExplained = left === 'following' || (!isClosed(left) && !end.isBroken);
    yield noteIf(
      isExplained || end.isBroken,
      'CONTENT_UNCHECKED',
      path,
      'There is nothing to compare the content with',
      {left},
    );
    return;
  }
  if (expected.pageSize === 0) return yield* checkEmpty(options, path);
  const wal = yield* readWal({...content, pageSize: expected.pageSize}, expected);
  const lockPgno = options.lockPgno(expected.pageSize);
  yield* checkContent({
    folder,
    path,
    checksumsPath,
    left,
    hasher: tools.hasher,
    lockPgno,
    expected,
    journal,
    wal,
    dirty,
  });
}

/** A follower whose content was being replaced as a whole gets it anew. */
function isCopyNeeded(left: LeftBehind, hasHeader: boolean, {position}: ExpectedContent): boolean {
  return left === 'following' && !hasHeader && position.txid > 0n;
}

function* describeLeft({left, id, name}: DatabaseCheckOptions): Generator<Finding> {
  const path = `files/${name}`;
  if (left === 'touched')
    yield note(
      'TOUCHED',
      path,
      'Files are not as the daemon closed them: the next start compares them with the log',
      {id},
    );
  if (left === 'daemon-died' || left === 'rebooted') {
    yield note('IN_USE', path, 'Database was in use when the daemon ended: the next start recovers it', {
      id,
      left,
    });
  }
}

function* readPosition(
  {folder, left}: DatabaseCheckOptions,
  directory: string,
): Generator<Finding, Position | undefined> {
  const path = `${directory}/position`;
  if (left !== 'following') return undefined;
  const bytes = yield* tried(path, () => folder.readAll(path));
  const text = bytes?.toString('latin1').trim() ?? '';
  if (/^[0-9a-f]{16}\/[89a-f][0-9a-f]{15}$/.test(text)) return parsePosition(text);
  if (text === '') return EMPTY_POSITION;
  yield violation('POSITION_BAD', path, 'Position of the files does not parse', {size: text.length});
  return undefined;
}

function* checkSummary(
  {left, summary, id}: DatabaseCheckOptions,
  end: LogEnd,
  path: string,
): Generator<Finding> {
  if (summary === undefined || !isClosed(left) || end.position === undefined || end.isBroken) return;
  const {position, term, pageSize, commit} = summary;
  const isSameShape =
    end.last === undefined || (end.last.pageSize === pageSize && end.last.commit === commit);
  if (isSameShape && equalPositions(position, end.position) && term === end.term) return;
  const message = `Log ends at ${formatPosition(end.position)}, and the database was closed at ${formatPosition(position)}`;
  yield violation('CATALOG_SUMMARY_MISMATCH', path, message, {id, position, term, logTerm: end.term});
}

/** The log has no transaction at all. */
function* checkEmpty({folder, left, id}: DatabaseCheckOptions, path: string): Generator<Finding> {
  const size = yield* tried(path, () => {
    const file = folder.open(path);
    file?.close();
    return file?.size ?? 0;
  });
  if (size === undefined || size === 0) return;
  yield noteIf(
    !isClosed(left),
    'PAGE_COUNT_MISMATCH',
    path,
    `Database has ${size} bytes, and its log nothing`,
    {id, size},
  );
}
