export type LtxErrorCode =
  /** A txid, checksum or position is not in its text form. */
  | 'LTX_BAD_NAME'
  /** The first four bytes are not `LTX1`. */
  | 'LTX_BAD_MAGIC'
  /** A header field, or a combination of them, is not allowed. */
  | 'LTX_BAD_HEADER'
  /** A page header is wrong: number out of bounds, out of order, the lock page, unknown flags. */
  | 'LTX_BAD_PAGE'
  /** A page's compressed bytes do not give exactly one page. */
  | 'LTX_BAD_PAYLOAD'
  /** The page index is malformed or disagrees with the frames. */
  | 'LTX_BAD_INDEX'
  /** The trailer's post-apply checksum is not allowed, or not that of a snapshot's pages. */
  | 'LTX_BAD_TRAILER'
  /** The file checksum does not match the bytes. */
  | 'LTX_CHECKSUM_MISMATCH'
  /** The bytes end before the record does. */
  | 'LTX_TRUNCATED'
  /** More bytes follow after the trailer. */
  | 'LTX_TRAILING_BYTES'
  /** A transaction does not follow on the one before it. */
  | 'LTX_GAP'
  /** A transaction makes the database longer but does not hold every page of the new part. */
  | 'LTX_UNCOVERED_GROWTH'
  /** Inputs of one compaction have different page sizes. */
  | 'LTX_PAGE_SIZE_MISMATCH';

/** Bytes or text that claim to be LTX and are not. `detail` holds the facts; `code` is stable. */
export class LtxError extends Error {
  override readonly name = 'LtxError';
  readonly code: LtxErrorCode;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(
    code: LtxErrorCode,
    message: string,
    detail: Readonly<Record<string, unknown>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.detail = detail;
  }
}
