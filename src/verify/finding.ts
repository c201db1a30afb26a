/** What `verify` can find. Codes are stable; `detail` holds the facts. */
export type FindingCode =
  /** The operating system refuses to read it, or it is no ordinary file or folder. */
  | 'READ_FAILED'
  /** A file or folder that should be there is not. */
  | 'FILE_MISSING'
  /** A file or folder that nobody knows. */
  | 'FILE_UNKNOWN'
  | 'CATALOG_CORRUPT'
  /** The last line of the catalog is not whole, which a crash explains: it is ignored. */
  | 'CATALOG_TORN'
  | 'CATALOG_DUPLICATE_NAME'
  /** Where the catalog says that the database stood when it was closed, and where it stands, differ. */
  | 'CATALOG_SUMMARY_MISMATCH'
  /** The node's identity or another small file does not parse. */
  | 'STATE_CORRUPT'
  /** The log's base file is damaged. */
  | 'LOG_BASE_CORRUPT'
  /** The log's mark of what is durable is damaged. */
  | 'LOG_MARK_CORRUPT'
  /** A record does not decode, or its bytes do not match its checksum. */
  | 'LOG_RECORD_CORRUPT'
  /** A record or segment does not follow on what stands before it. */
  | 'LOG_GAP'
  /** A record was written in a lower term than the one before it. */
  | 'LOG_TERM_FELL'
  /** Records that were durable are not there. */
  | 'LOG_SHORT'
  /** The last record was being written when the daemon ended: the next start cuts it off. */
  | 'LOG_TORN_TAIL'
  /** A cut, a reset or a retention was interrupted: the next start completes it. */
  | 'LOG_UNFINISHED'
  /** An index does not say what stands in its segment. */
  | 'INDEX_MISMATCH'
  /** The header of the page checksums is damaged or void. */
  | 'CHECKSUMS_CORRUPT'
  /** The page checksums stand at a position that the log does not have. */
  | 'CHECKSUMS_NOT_IN_LOG'
  /** The page checksums do not add up to the checksum of their position. */
  | 'CHECKSUMS_MISMATCH'
  /** A page has its right content, and a checksum that belongs to another one. */
  | 'CHECKSUMS_BAD_ENTRY'
  /** Where a follower's files stand is not a position of its log. */
  | 'POSITION_BAD'
  /** A page is not what the log says. */
  | 'PAGE_MISMATCH'
  | 'PAGE_COUNT_MISMATCH'
  | 'PAGE_SIZE_MISMATCH'
  /** All pages together do not have the checksum of the log's end. */
  | 'CONTENT_MISMATCH'
  /** There is nothing to compare the content with. */
  | 'CONTENT_UNCHECKED'
  | 'WAL_HEADER_CORRUPT'
  /** The WAL is valid up to a place before the end of what was logged from it. */
  | 'WAL_SHORT'
  /** A rollback journal that SQLite will roll back when the database is next opened. */
  | 'JOURNAL_HOT'
  /** The database was in use when the daemon ended: the next start recovers it. */
  | 'IN_USE'
  /** Files changed since the daemon closed them: the next start compares them with the log. */
  | 'TOUCHED'
  /** Files and log differ in a way that the next start mends by itself. */
  | 'NEEDS_RECOVERY';

/** A note says what is unusual and harmless; a violation, that data or what protects it is damaged. */
export interface Finding {
  readonly level: 'note' | 'violation';
  readonly code: FindingCode;
  /** Relative to the data directory. */
  readonly path: string;
  readonly message: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

type Detail = Readonly<Record<string, unknown>>;

export function violation(code: FindingCode, path: string, message: string, detail: Detail = {}): Finding {
  return {level: 'violation', code, path, message, detail};
}

export function note(code: FindingCode, path: string, message: string, detail: Detail = {}): Finding {
  return {level: 'note', code, path, message, detail};
}

/** A note where a crash explains it, else a violation. */
export function noteIf(
  isExplained: boolean,
  code: FindingCode,
  path: string,
  message: string,
  detail: Detail = {},
): Finding {
  return {level: isExplained ? 'note' : 'violation', code, path, message, detail};
}

/** Lets `check` find what it finds; where the operating system refuses to read, that is a finding too. Our own bugs pass through. */
export function* guarded<Result>(
  path: string,
  check: () => Generator<Finding, Result>,
): Generator<Finding, Result | undefined> {
  try {
    return yield* check();
  } catch (error) {
    yield describeFailure(path, error);
    return undefined;
  }
}

/** As `guarded`, for a step that finds nothing itself. */
export function* tried<Result>(path: string, step: () => Result): Generator<Finding, Result | undefined> {
  try {
    return step();
  } catch (error) {
    yield describeFailure(path, error);
    return undefined;
  }
}

function describeFailure(path: string, error: unknown): Finding {
  const isWorlds =
    error instanceof Error &&
    'code' in error &&
    ('syscall' in error || error.code === 'ERR_FS_FILE_TOO_LARGE');
  if (!isWorlds) throw error;
  return violation('READ_FAILED', path, `Cannot read "${path}": ${error.message}`, {cause: error.code});
}
