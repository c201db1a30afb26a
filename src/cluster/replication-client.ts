import {setTimeout as sleep} from 'node:timers/promises';
import {ClusterError, errorCode} from './cluster-error.ts';
import {PrimaryConnection, type PrimaryIdentity} from './primary-connection.ts';
import type {ReplicationSink} from './replication-sink.ts';
import {defaultStreamLimits, type StreamLimits} from './stream-limits.ts';
import type {StreamLogger} from './stream-logger.ts';
import {STREAM_PATH} from './wire.ts';

/** `caught-up`: every database has been as the primary had it when the stream began; kept until the stream ends. */
export type FollowState =
  | {readonly at: 'connecting'}
  | {readonly at: 'syncing'; readonly primary: PrimaryIdentity}
  | {readonly at: 'caught-up'; readonly primary: PrimaryIdentity}
  | {readonly at: 'disconnected'; readonly error: Error}
  | {readonly at: 'stopped'};

export interface ReplicationClientOptions {
  /** The primary's advertised `http:` or `https:` URL. */
  readonly primaryUrl: string;
  readonly sink: ReplicationSink;
  readonly log: StreamLogger;
  readonly limits?: Partial<StreamLimits>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** From 0 to 1, for the jitter of reconnects. */
  readonly random: () => number;
  readonly onState?: (state: FollowState) => void;
}

/** Follows one primary, for one group of databases, through as many connections as it takes. */
export class ReplicationClient {
  readonly #options: ReplicationClientOptions;
  readonly #limits: StreamLimits;
  #state: FollowState = {at: 'stopped'};
  #attempt = 0;
  #reported: string | undefined;

  constructor(options: ReplicationClientOptions) {
    this.#options = options;
    this.#limits = {...defaultStreamLimits, ...options.limits};
  }

  get state(): FollowState {
    return this.#state;
  }

  /**
   * Follows until `signal` aborts, then resolves, once the sink is left alone. Refusals are retried, too: an operator may
   * put right the other node. May be called again after it has resolved.
   */
  async run(signal: AbortSignal): Promise<void> {
    const {sink, log, now, primaryUrl} = this.#options;
    const url = streamUrl(primaryUrl);
    while (!signal.aborted) {
      this.#setState({at: 'connecting'});
      const error = await PrimaryConnection.run({
        url,
        sink,
        limits: this.#limits,
        log,
        now,
        signal,
        onWelcome: primary => this.#onWelcome(primary),
        onReady: primary => this.#onReady(primary),
      });
      if (signal.aborted) break;
      this.#report(error);
      this.#setState({at: 'disconnected', error});
      await this.#pause(signal);
    }
    this.#setState({at: 'stopped'});
  }

  #onWelcome(primary: PrimaryIdentity): void {
    this.#options.log.info('following primary', {...primary, url: this.#options.primaryUrl});
    this.#reported = undefined;
    this.#setState({at: 'syncing', primary});
  }

  #onReady(primary: PrimaryIdentity): void {
    // Only a stream that got so far counts as a success: one that breaks down over and over is not retried fast.
    this.#attempt = 0;
    this.#options.log.info('caught up with primary', {...primary});
    this.#setState({at: 'caught-up', primary});
  }

  #setState(state: FollowState): void {
    this.#state = state;
    this.#options.onState?.(state);
  }

  /** One line per change, not per attempt. */
  #report(error: Error): void {
    const {log, primaryUrl: url} = this.#options;
    const code = errorCode(error);
    const reason = error instanceof ClusterError ? error.detail.reason : undefined;
    const key = `${code}/${reason ?? errorCode(error.cause)}`;
    if (key === this.#reported) {
      log.debug('primary still not reached', {url, code, error});
      return;
    }
    this.#reported = key;
    if (code === 'CLUSTER_DISCONNECTED' || code === 'CLUSTER_SILENT' || reason === 'closing')
      log.warn('primary lost', {url, code, error});
    else log.error('primary not followed', {url, code, error});
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const {reconnectDelayMinMs, reconnectDelayMs} = this.#limits;
    const delayMs = Math.min(reconnectDelayMs, reconnectDelayMinMs * 2 ** Math.min(this.#attempt++, 20));
    try {
      await sleep(delayMs * (0.5 + this.#options.random() / 2), undefined, {signal});
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

/** The stream's WebSocket URL at a node's advertised URL. Throws `CLUSTER_PROTOCOL` if that is not `http:` or `https:`. */
export function streamUrl(advertisedUrl: string): string {
  const url = URL.canParse(advertisedUrl) ? new URL(advertisedUrl) : undefined;
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:') {
    throw new ClusterError(
      'CLUSTER_PROTOCOL',
      `Cannot follow primary at "${advertisedUrl}": it is no http or https URL`,
    );
  }
  url.protocol = url.protocol === 'http:' ? 'ws:' : 'wss:';
  url.pathname = url.pathname.replace(/\/*$/, STREAM_PATH);
  url.search = '';
  url.hash = '';
  return url.href;
}
