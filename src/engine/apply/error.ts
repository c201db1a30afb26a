export type ApplyErrorCode =
  /** Another process holds a lock that the follower must have; try again. */
  | 'APPLY_LOCKED'
  /** There is no database file yet. */
  | 'APPLY_ABSENT'
  /** The transaction contradicts itself or the database. */
  | 'APPLY_BAD_TRANSACTION'
  /** A write failed and so did undoing it: close and open again. */
  | 'APPLY_BROKEN'
  /** The files are not what SQLite would have left. */
  | 'APPLY_CORRUPT';

/** What can be wrong with a followed database besides the disk, whose errors are Node's and pass through. */
export class ApplyError extends Error {
  override readonly name = 'ApplyError';
  readonly code: ApplyErrorCode;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(
    code: ApplyErrorCode,
    message: string,
    detail: Readonly<Record<string, unknown>> = {},
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : {cause});
    this.code = code;
    this.detail = detail;
  }
}
