export type ClusterErrorCode =
  | 'CLUSTER_REFUSED'
  | 'CLUSTER_OTHER_CLUSTER'
  | 'CLUSTER_STALE_PRIMARY'
  | 'CLUSTER_PROTOCOL'
  | 'CLUSTER_SILENT'
  | 'CLUSTER_HANDSHAKE_TIMEOUT'
  | 'CLUSTER_DISCONNECTED'
  | 'CLUSTER_OVERLOAD'
  | 'CLUSTER_REPLACED'
  | 'CLUSTER_CLOSED'
  | 'CLUSTER_SOURCE';

/** A stream between two nodes could not be opened, or ended. Data is never changed because of it. */
export class ClusterError extends Error {
  override readonly name = 'ClusterError';
  readonly code: ClusterErrorCode;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(
    code: ClusterErrorCode,
    message: string,
    detail: Readonly<Record<string, unknown>> = {},
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : {cause});
    this.code = code;
    this.detail = detail;
  }
}

/** The `code` of an error from anywhere, or `undefined`. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
