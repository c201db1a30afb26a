const MiB = 1024 * 1024;

/** Times in milliseconds and sizes in bytes that bound a stream, on either end. */
export interface StreamLimits {
  readonly heartbeatMs: number;
  /** A peer of which no byte arrives for so long is dead. */
  readonly silenceMs: number;
  /** From the connection to the last frame of the handshake. */
  readonly handshakeMs: number;
  readonly reconnectDelayMinMs: number;
  readonly reconnectDelayMs: number;
  /** Unsent bytes in a follower's socket above which its databases are left behind. */
  readonly socketBytesMax: number;
  /** Unsent bytes above which no part of a transfer is added, so that small commits needn't wait behind more. */
  readonly bulkSocketBytesMax: number;
  /** Bytes of one database, sent and not yet taken by the follower. */
  readonly databaseWindowBytes: number;
  /** The same over all databases of a follower. */
  readonly sessionWindowBytes: number;
  /** Bytes that a follower keeps for applying before it stops reading. Above `sessionWindowBytes`. */
  readonly applyBacklogBytesMax: number;
  /** Unsent names, drops and the like, above which a follower is disconnected. */
  readonly controlBytesMax: number;
  readonly databaseCountMax: number;
  /** Transfers beyond one frame, per follower, at the same time. */
  readonly bulkTransfersMax: number;
  readonly smallTransfersMax: number;
}

export const defaultStreamLimits: StreamLimits = {
  heartbeatMs: 500,
  silenceMs: 2_500,
  handshakeMs: 3_000,
  reconnectDelayMinMs: 100,
  reconnectDelayMs: 1_000,
  socketBytesMax: 4 * MiB,
  bulkSocketBytesMax: MiB / 2,
  databaseWindowBytes: MiB,
  sessionWindowBytes: 16 * MiB,
  applyBacklogBytesMax: 32 * MiB,
  controlBytesMax: 32 * MiB,
  databaseCountMax: 200_000,
  bulkTransfersMax: 2,
  smallTransfersMax: 4,
};
