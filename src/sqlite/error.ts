export type SqliteFormatErrorCode =
  | 'DATABASE_TRUNCATED'
  | 'DATABASE_BAD_MAGIC'
  | 'DATABASE_BAD_PAGE_SIZE'
  | 'DATABASE_BAD_HEADER'
  | 'JOURNAL_TRUNCATED'
  | 'JOURNAL_BAD_MAGIC'
  | 'JOURNAL_BAD_PAGE_SIZE'
  | 'JOURNAL_BAD_SECTOR_SIZE'
  | 'JOURNAL_BAD_NAME'
  | 'WAL_TRUNCATED'
  | 'WAL_BAD_MAGIC'
  | 'WAL_BAD_PAGE_SIZE'
  | 'WAL_BAD_CHECKSUM'
  | 'WAL_BAD_VERSION'
  | 'WAL_BAD_PGNO'
  | 'WAL_INDEX_TRUNCATED'
  | 'WAL_INDEX_BAD_CHECKSUM'
  | 'WAL_INDEX_BAD_VERSION'
  | 'WAL_INDEX_BAD_PAGE_SIZE'
  | 'WAL_INDEX_CORRUPT';

/** Bytes that are not what SQLite's file formats say. Codes are named for the file that holds them. */
export class SqliteFormatError extends Error {
  override readonly name = 'SqliteFormatError';
  readonly code: SqliteFormatErrorCode;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(
    code: SqliteFormatErrorCode,
    message: string,
    detail: Readonly<Record<string, unknown>> = {},
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : {cause});
    this.code = code;
    this.detail = detail;
  }
}
