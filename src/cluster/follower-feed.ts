import {AssertionError, unreachable} from '../lib/assert.ts';
import {EMPTY_POSITION, formatPosition, type Position, type Txid} from '../ltx/position.ts';
import {ClusterError, errorCode} from './cluster-error.ts';
import {FollowedDatabase, Window} from './followed-database.ts';
import type {Outbox} from './outbox.ts';
import type {CommittedEvent, DatabaseState, ReplicationSource} from './replication-source.ts';
import {type Weight, type WorkPermit, WorkQueue} from './scheduler.ts';
import type {StreamLimits} from './stream-limits.ts';
import type {StreamLogger} from './stream-logger.ts';
import {sendLog, sendSnapshot, type TransferPort, type TransferResult} from './transfer.ts';
import {encodeFrame, type FollowerPosition, type Frame, type FrameOf, PAYLOAD_SIZE_MAX} from './wire.ts';

const RETRY_DELAY_MIN_MS = 100;
const RETRY_DELAY_MAX_MS = 5_000;

export interface FollowerFeedOptions {
  readonly source: ReplicationSource;
  readonly outbox: Outbox;
  readonly nodeId: string;
  readonly limits: StreamLimits;
  readonly log: StreamLogger;
  readonly onAck: (id: string, position: Position) => void;
  /** What this follower needs of a database's log has changed. */
  readonly onNeeds: (id: string, isUrgent: boolean) => void;
  /** `isSynced` may have become true. */
  readonly onProgress: () => void;
}

/** What one follower has of each database, and the work of sending it the rest. */
export class FollowerFeed {
  readonly #options: FollowerFeedOptions;
  readonly #outbox: Outbox;
  readonly #window: Window;
  readonly #work: WorkQueue;
  readonly #databases = new Map<string, FollowedDatabase>();
  /** To be worked on once the window has room. */
  readonly #parked = new Set<FollowedDatabase>();
  readonly #retries = new Set<NodeJS.Timeout>();
  readonly #closed = new AbortController();
  #unsyncedCount = 0;
  #isSynced = false;

  constructor(options: FollowerFeedOptions) {
    const {limits} = options;
    this.#options = options;
    this.#outbox = options.outbox;
    this.#window = new Window(limits.databaseWindowBytes, limits.sessionWindowBytes);
    this.#work = new WorkQueue({small: limits.smallTransfersMax, bulk: limits.bulkTransfersMax});
  }

  get inFlightBytes(): number {
    return this.#window.inFlightBytes;
  }

  get databaseCount(): number {
    return this.#databases.size;
  }

  /** Databases that need something else than the next commit. */
  get behindCount(): number {
    let count = 0;
    for (const {stage} of this.#databases.values()) if (stage.at !== 'live' && stage.at !== 'held') count++;
    return count;
  }

  /** Every database has been acknowledged as of the time it was entered. Stays true. */
  get isSynced(): boolean {
    this.#isSynced ||= this.#unsyncedCount === 0;
    return this.#isSynced;
  }

  has(id: string): boolean {
    return this.#databases.has(id);
  }

  ids(): Iterable<string> {
    return this.#databases.keys();
  }

  acked(id: string): Position | undefined {
    return this.#databases.get(id)?.acked;
  }

  neededAfter(id: string): Txid | undefined {
    return this.#databases.get(id)?.neededAfter;
  }

  /** Sends nothing more. */
  close(): void {
    this.#closed.abort();
    for (const timer of this.#retries) clearTimeout(timer);
    for (const database of this.#databases.values()) database.job?.abort();
  }

  /** `frame` gives the event's record, encoded, if it has one. */
  onCommitted(event: CommittedEvent, frame: () => Uint8Array): void {
    const database = this.#databases.get(event.id);
    if (database === undefined) return;
    const {stage} = database;
    if (stage.at === 'held') {
      database.stage = {at: 'checking', position: stage.position, term: stage.term};
      this.#advance(database);
    }
    if (stage.at !== 'live' || event.position.txid <= database.sent) return;
    const size = event.record?.length;
    const isNext = size !== undefined && event.position.txid === database.sent + 1n;
    if (isNext && this.#window.allows(database, size) && this.#outbox.offer(frame())) {
      this.#window.add(database, size);
      database.sent = event.position.txid;
      return;
    }
    database.stage = {at: 'behind', weight: event.size > PAYLOAD_SIZE_MAX ? 'bulk' : 'small'};
    this.#advance(database);
  }

  /** Takes up one of our databases. What the follower lacks it creates by the catalogue or a `create` sent before. */
  enter(state: DatabaseState, theirs: FollowerPosition | undefined): void {
    const {position, term} = theirs ?? {position: EMPTY_POSITION, term: 0n};
    const database = new FollowedDatabase(state.id, {at: 'checking', position, term});
    if (state.position.txid > 0n && !this.#isSynced) {
      database.target = state.position.txid;
      this.#unsyncedCount++;
    }
    this.#databases.set(state.id, database);
    this.#settleSimple(database, position, term);
    this.#advance(database);
  }

  /** The database is no more. */
  forget(id: string): void {
    const database = this.#databases.get(id);
    if (database === undefined) return;
    database.job?.abort();
    this.#work.remove(id);
    this.#parked.delete(database);
    this.#window.forget(database);
    this.#reachTarget(database);
    this.#databases.delete(id);
    this.#options.onNeeds(id, false);
    this.#onRoom();
  }

  /** Settles what needs no look into the log. True: settled. */
  #settleSimple(database: FollowedDatabase, position: Position, term: bigint): boolean {
    const state = this.#stateOf(database);
    if (position.txid === 0n) {
      this.#agree(database, EMPTY_POSITION);
      return true;
    }
    if (state.position.txid === 0n) {
      this.#options.log.error('follower has data of a database that is empty here', {
        nodeId: this.#options.nodeId,
        id: database.id,
        position: formatPosition(position),
      });
      database.stage = {at: 'held', position, term};
      this.#reachTarget(database);
      return true;
    }
    const {txid, checksum} = state.position;
    if (position.txid !== txid || position.checksum !== checksum || term !== state.term) return false;
    this.#agree(database, position);
    return true;
  }

  /** The follower's log is known to be the beginning of ours. */
  #agree(database: FollowedDatabase, position: Position): void {
    const state = this.#options.source.database(database.id);
    database.sent = position.txid;
    database.stage =
      state !== undefined && state.position.txid > position.txid
        ? {at: 'behind', weight: 'small'}
        : {at: 'live'};
    this.#acknowledge(database, position);
  }

  #acknowledge(database: FollowedDatabase, position: Position): void {
    database.acked = position;
    database.failureCount = 0;
    database.copiesWanted = 0;
    if (database.target !== undefined && position.txid >= database.target) this.#reachTarget(database);
    this.#options.onNeeds(database.id, false);
    this.#options.onAck(database.id, position);
  }

  #reachTarget(database: FollowedDatabase): void {
    if (database.target === undefined) return;
    database.target = undefined;
    this.#unsyncedCount--;
  }

  onAck(id: string, position: Position): void {
    const database = this.#databases.get(id);
    if (database === undefined) return;
    if (position.txid > database.sent) {
      throw new ClusterError(
        'CLUSTER_PROTOCOL',
        `Cannot accept ack of ${position.txid}: ${database.sent} was sent`,
        {id},
      );
    }
    database.holdAfter = undefined;
    this.#acknowledge(database, position);
  }

  onCredit(id: string, size: number): void {
    const database = this.#databases.get(id);
    if (database === undefined) return;
    if (!this.#window.take(database, size)) {
      throw new ClusterError('CLUSTER_PROTOCOL', `Cannot accept credit: ${size} bytes were not sent`, {id});
    }
    this.#onRoom();
  }

  /** The window has more room than before. */
  #onRoom(): void {
    this.#outbox.pump();
    for (const parked of this.#parked) {
      if (this.#window.isFull) return;
      if (!this.#window.allows(parked, 0)) continue;
      this.#parked.delete(parked);
      this.#advance(parked);
    }
  }

  /** The follower could not apply what it got. What is in flight it ignores until it sees our `restart`. */
  onResync(frame: FrameOf<'resync'>): void {
    const {id, position, term, want} = frame;
    const database = this.#databases.get(id);
    if (database === undefined) return;
    const {log, nodeId} = this.#options;
    log.warn('follower asks again', {nodeId, id, want, position: formatPosition(position)});
    // What no copy helps keeps the follower from being told that all else is there no longer.
    if (want === 'snapshot' && database.copiesWanted++ > 0) this.#reachTarget(database);
    database.job?.abort();
    database.job = undefined;
    database.holdAfter = undefined;
    database.sent = position.txid;
    database.stage = want === 'snapshot' ? {at: 'snapshot'} : {at: 'checking', position, term};
    this.#outbox.control({type: 'restart', id});
    this.#advance(database);
    this.#options.onProgress();
  }

  /** Queues what is to be done next for a database, if anything, and if its window has room. */
  #advance(database: FollowedDatabase): void {
    if (database.job !== undefined || this.#closed.signal.aborted) return;
    const weight = this.#weightOf(database);
    if (weight === undefined) return;
    if (database.stage.at !== 'checking' && !this.#window.allows(database, 0)) {
      this.#parked.add(database);
      return;
    }
    this.#work.add(database.id, weight);
    this.#takeNext();
  }

  #weightOf(database: FollowedDatabase): Weight | undefined {
    const {stage} = database;
    switch (stage.at) {
      case 'live':
      case 'held':
        return undefined;
      case 'checking':
        return 'small';
      case 'behind':
        return stage.weight;
      case 'snapshot': {
        const state = this.#options.source.database(database.id);
        return state !== undefined && state.commit * state.pageSize <= PAYLOAD_SIZE_MAX ? 'small' : 'bulk';
      }
      default:
        return unreachable(stage);
    }
  }

  #begin(permit: WorkPermit): void {
    const database = this.#databases.get(permit.id);
    if (database === undefined) {
      permit.release();
      return;
    }
    const job = new AbortController();
    database.job = job;
    // Rejects for bugs of ours only, which end the process.
    void this.#run(database, permit, job);
  }

  #takeNext(): void {
    if (this.#closed.signal.aborted) return;
    for (;;) {
      const permit = this.#work.take();
      if (permit === undefined) return;
      this.#begin(permit);
    }
  }

  async #run(database: FollowedDatabase, permit: WorkPermit, job: AbortController): Promise<void> {
    let delayMs = 0;
    try {
      await this.#step(database, permit.weight, job);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      if (!job.signal.aborted) delayMs = this.#failed(database, error);
    } finally {
      permit.release();
    }
    if (delayMs === 0) this.#finishJob(database, job);
    else this.#retryAfter(delayMs, () => this.#finishJob(database, job));
    this.#takeNext();
  }

  /** Whoever aborted the job has already taken it off the database. */
  #finishJob(database: FollowedDatabase, job: AbortController): void {
    if (job.signal.aborted) return;
    database.job = undefined;
    this.#advance(database);
  }

  async #step(database: FollowedDatabase, weight: Weight, job: AbortController): Promise<void> {
    const {source} = this.#options;
    const {stage} = database;
    if (stage.at === 'checking') return await this.#check(database, job, stage.position, stage.term);
    if (stage.at !== 'behind' && stage.at !== 'snapshot') return;
    const state = this.#stateOf(database);
    if (stage.at === 'behind' && state.position.txid <= database.sent) {
      database.stage = {at: 'live'};
      return;
    }
    const port = this.#port(database, weight, job.signal);
    const result =
      stage.at === 'behind' ? await sendLog(port, source, database.sent) : await sendSnapshot(port, source);
    if (!job.signal.aborted) this.#apply(database, result);
  }

  /** Throws where the database is gone: its drop is on the way, and ends the retries. */
  #stateOf(database: FollowedDatabase): DatabaseState {
    const state = this.#options.source.database(database.id);
    if (state === undefined) throw new ClusterError('CLUSTER_SOURCE', 'Cannot send database: it is gone');
    return state;
  }

  #apply(database: FollowedDatabase, result: TransferResult): void {
    switch (result.at) {
      case 'sent': {
        const state = this.#options.source.database(database.id);
        database.sent = result.txid;
        const isBehind = state !== undefined && state.position.txid > result.txid;
        database.stage = isBehind ? {at: 'behind', weight: 'small'} : {at: 'live'};
        return;
      }
      case 'too-large':
        database.stage = {at: 'behind', weight: 'bulk'};
        return;
      case 'too-old':
        if (database.stage.at === 'snapshot') {
          throw new ClusterError('CLUSTER_SOURCE', 'Cannot send snapshot: there is nothing to copy');
        }
        database.stage = {at: 'snapshot'};
        return;
      default:
        unreachable(result);
    }
  }

  async #check(
    database: FollowedDatabase,
    job: AbortController,
    position: Position,
    term: bigint,
  ): Promise<void> {
    if (this.#settleSimple(database, position, term)) {
      this.#options.onProgress();
      return;
    }
    const {source, log} = this.#options;
    const {id} = database;
    const agreement = await source.agrees(id, position, term);
    if (job.signal.aborted) return;
    if (agreement === 'yes') {
      this.#agree(database, position);
      this.#options.onProgress();
      return;
    }
    const reason = agreement === 'no' ? 'diverged' : 'unverifiable';
    const ours = source.database(id)?.position ?? EMPTY_POSITION;
    log.warn('follower has another history', {
      nodeId: this.#options.nodeId,
      id,
      reason,
      theirs: formatPosition(position),
    });
    this.#outbox.control({type: 'rewind', id, reason, position: ours});
    database.acked = undefined;
    database.stage = {at: 'snapshot'};
  }

  /** Our own log or disk failed, or changed under the transfer. Returns the time to wait before trying again. */
  #failed(database: FollowedDatabase, error: unknown): number {
    const {source, log} = this.#options;
    database.failureCount++;
    const delayMs = Math.min(
      RETRY_DELAY_MAX_MS,
      RETRY_DELAY_MIN_MS * 2 ** Math.min(database.failureCount, 10),
    );
    if (source.database(database.id) !== undefined) {
      log.warn('database not sent', {
        nodeId: this.#options.nodeId,
        id: database.id,
        code: errorCode(error),
        error,
        delayMs,
      });
    }
    return delayMs;
  }

  #retryAfter(delayMs: number, run: () => void): void {
    const timer = setTimeout(() => {
      this.#retries.delete(timer);
      run();
    }, delayMs);
    this.#retries.add(timer);
  }

  #port(database: FollowedDatabase, weight: Weight, signal: AbortSignal): TransferPort {
    return {
      id: database.id,
      weight,
      signal,
      send: frame => this.#sendInTurn(database, weight, frame, signal),
      hold: txid => {
        database.holdAfter = txid;
        this.#options.onNeeds(database.id, true);
      },
    };
  }

  async #sendInTurn(
    database: FollowedDatabase,
    weight: Weight,
    frame: Frame,
    signal: AbortSignal,
  ): Promise<void> {
    const bytes = encodeFrame(frame);
    const size = 'bytes' in frame ? frame.bytes.length : 0;
    const turn = {
      weight,
      // Small transfers were let in when the database's window had room for them.
      isAllowed: () => weight === 'small' || this.#window.allows(database, size),
      send: () => {
        this.#window.add(database, size);
        this.#outbox.push(bytes);
      },
    };
    await this.#outbox.turn(turn, signal);
  }
}
