import type {ChecksumFlush} from '../../log/page-checksums.ts';
import type {DatabaseStore} from '../database-store.ts';
import type {Flusher, FlushJob} from '../flusher.ts';

export interface StoreFlusherOptions {
  readonly flusher: Flusher;
  /** The log was flushed, or could not be. */
  readonly synced: () => void;
  readonly failed: (error: unknown) => void;
}

/** How long changes of the page checksums may take to be on disk: what a start has to replay, and the log has to keep. */
const FLUSH_INTERVAL_MS = 10_000;
/** Where much was logged it is done more often: after a kill the next daemon reads all of it while apps wait. */
const BUSY_INTERVAL_MS = 500;
const BUSY_BYTES = 512 * 1024;

/** Makes the log and the page checksums of one database durable, without ever waiting for the disk on the caller's thread. */
export class StoreFlusher {
  readonly #options: StoreFlusherOptions;
  #store: DatabaseStore | undefined;
  #isSyncing = false;
  /** Of the sync of the log that is under way. */
  #jobs: readonly FlushJob[] = [];
  #syncErrno = 0;
  #flush: ChecksumFlush | undefined;
  #flushedMs = 0;

  constructor(options: StoreFlusherOptions) {
    this.#options = options;
  }

  attach(store: DatabaseStore, nowMs: number): void {
    this.#store = store;
    this.#flushedMs = store.checksums.durablePosition.txid === 0n ? 0 : nowMs; // The first is due: without it all is read again.
  }

  /** The store is about to be flushed and closed by the caller. */
  detach(): void {
    this.#flush?.abandon();
    this.#flush = undefined;
    this.#store = undefined;
    this.#isSyncing = false;
  }

  /** Whether the whole log is durable; if not, `synced` is called when it is, or when that failed. */
  isLogDurable(): boolean {
    const log = this.#store?.log;
    if (log === undefined || log.syncedTxid >= log.position.txid) return true;
    if (!this.#isSyncing) this.#syncLog(() => undefined, false);
    else for (const job of this.#jobs) this.#options.flusher.hurry(job);
    return false;
  }

  /** The errno of a flush of the log that failed, once: it is tried again afterwards. */
  takeErrno(): number {
    const errno = this.#syncErrno;
    this.#syncErrno = 0;
    return errno;
  }

  /** Called now and then while nothing is being captured. */
  tend(nowMs: number): void {
    const store = this.#store;
    if (store === undefined || this.#isSyncing || this.#flush !== undefined || store.isRebuilding) return;
    const intervalMs = store.log.unsyncedBytes < BUSY_BYTES ? FLUSH_INTERVAL_MS : BUSY_INTERVAL_MS;
    if (nowMs - this.#flushedMs < intervalMs) return;
    if (store.checksums.durablePosition.txid === store.position.txid) return;
    this.#flushedMs = nowMs;
    const flush = store.checksums.prepareFlush({position: store.position, term: store.term});
    this.#flush = flush;
    this.#syncLog(() => this.#writeEntries(flush), true);
  }

  #writeEntries(flush: ChecksumFlush): void {
    this.#step(flush, () => {
      flush.writeEntries();
      this.#syncFile(flush, () => this.#writeHeader(flush));
    });
  }

  #writeHeader(flush: ChecksumFlush): void {
    this.#step(flush, () => {
      flush.writeHeader();
      this.#syncFile(flush, () => {
        flush.done();
        this.#flush = undefined;
      });
    });
  }

  #syncFile(flush: ChecksumFlush, then: () => void): void {
    const done = (errno: number) => {
      if (this.#flush !== flush) return;
      if (errno === 0) then();
      else this.#giveUp(flush, new Error(`errno ${errno}`));
    };
    this.#options.flusher.flush({fd: flush.fd(), isDataOnly: true, isBackground: true, done});
  }

  #step(flush: ChecksumFlush, write: () => void): void {
    if (this.#flush !== flush) return;
    try {
      write();
    } catch (error) {
      this.#flush = undefined; // It has abandoned itself.
      this.#options.failed(error);
    }
  }

  #giveUp(flush: ChecksumFlush, error: unknown): void {
    flush.abandon();
    this.#flush = undefined;
    this.#options.failed(error);
  }

  #syncLog(then: () => void, isBackground: boolean): void {
    const store = this.#store;
    if (store === undefined) return;
    const {log} = store;
    const {txid} = log.position;
    const targets = [...log.syncTargets()];
    if (targets.length === 0) {
      then();
      return;
    }
    this.#isSyncing = true;
    let left = targets.length;
    let failed = 0;
    const done = (errno: number) => {
      failed ||= errno;
      if (--left > 0 || this.#store !== store) return;
      this.#isSyncing = false;
      this.#syncErrno = failed;
      if (failed === 0) {
        log.markSynced(txid);
        then();
      } else {
        const error = new Error(`errno ${failed}`);
        if (this.#flush === undefined) this.#options.failed(error);
        else this.#giveUp(this.#flush, error);
      }
      this.#options.synced();
    };
    this.#jobs = targets.map(fd => ({fd, isDataOnly: true, isBackground, done}));
    for (const job of this.#jobs) this.#options.flusher.flush(job);
  }
}
