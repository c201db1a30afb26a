export type LogErrorCode =
  /** Files of the log are damaged or contradict each other in a part that was durable. */
  | 'LOG_CORRUPT'
  /** The folder holds a file that is not the log's. */
  | 'LOG_FOREIGN'
  /** A record does not follow on the log's position. */
  | 'LOG_GAP'
  /** A record that this log does not take: without checksums, or cut short. */
  | 'LOG_BAD_RECORD'
  /** The record was dropped after its entry was handed out. */
  | 'LOG_GONE'
  /** No record of the log ends with the transaction asked for. */
  | 'LOG_NOT_FOUND'
  /** A durable step failed half way: the log must be opened again, which completes it. */
  | 'LOG_FAILED';

/** What can be wrong with a transaction log on disk. `detail` holds the facts; `code` is stable. */
export class LogError extends Error {
  override readonly name = 'LogError';
  readonly code: LogErrorCode;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(
    code: LogErrorCode,
    message: string,
    detail: Readonly<Record<string, unknown>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.detail = detail;
  }
}
