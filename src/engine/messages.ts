import type {MessagePort} from 'node:worker_threads';
import type {LogEntry} from '../log/log-entry.ts';
import type {Position, Txid} from '../ltx/position.ts';
import type {DatabaseSummary} from './catalog.ts';

/** Everything that crosses between the main thread and the fs and apply threads. All of it can be cloned. */

export type NodeRole = 'primary' | 'follower';

export interface LogMessage {
  readonly type: 'log';
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * Under what a daemon serves. While both stay the same only a daemon has died: nothing that it wrote is lost, and nobody
 * else could change the files.
 */
export interface Epoch {
  /** Names the machine's start. */
  readonly boot: string;
  /** Names the keeper. */
  readonly run: string;
}

/** What both threads are started with. */
export interface ThreadData {
  readonly fuseFd: number;
  readonly dataDirectory: string;
  readonly mountDirectory: string;
  readonly role: NodeRole;
  readonly term: bigint;
  readonly compress: boolean;
  readonly pendingByte: number | undefined;
  readonly followerWrites: 'busy' | 'readonly';
  readonly epoch: Epoch;
  /** A test wants the process to die at this disk call: `name` or `name:count`. */
  readonly crashAt: string | undefined;
  /** While there is much to do, CPUs should not sleep. */
  readonly keepsAwake: boolean;
}

export interface FsThreadData extends ThreadData {
  /** eventfd that main writes to when it has posted something. */
  readonly wakeFd: number;
  /** Pipe to the keeper that tells it the loop goes round, or -1. */
  readonly heartbeatFd: number;
  readonly spinNs: number;
  /** The connection served requests before: ask the kernel for those that got no answer. */
  readonly isResuming: boolean;
  readonly port: MessagePort;
  /** Int32: counts the batches of events that main has taken. */
  readonly taken: SharedArrayBuffer;
}

/** A database as the engine tells of it. */
export interface DatabaseInfo extends DatabaseSummary {
  readonly id: string;
  readonly name: string;
}

export interface LocatedEntry {
  readonly entry: LogEntry;
  /** The segment file that holds the record. */
  readonly path: string;
}

/** Questions that main asks the fs thread about databases that it captures. */
export type FsQuestion =
  | {readonly kind: 'entries'; readonly id: string; readonly after: Txid; readonly countMax: number}
  | {readonly kind: 'agrees'; readonly id: string; readonly position: Position; readonly term: bigint}
  | {
      readonly kind: 'prune';
      readonly keepFrom: ReadonlyMap<string, Txid>;
      readonly olderThanMs: number;
      readonly bytesMax: number | undefined;
    };

export type FsAnswer =
  /** `undefined`: the log does not reach back that far, or the database is gone. */
  | {readonly kind: 'entries'; readonly entries: readonly LocatedEntry[] | undefined}
  | {readonly kind: 'agrees'; readonly agreement: 'yes' | 'no' | 'unknown'}
  | {readonly kind: 'prune'}
  /** An error of the disk. */
  | {readonly kind: 'failed'; readonly error: unknown};

export type FsCommand =
  | {readonly type: 'ask'; readonly request: number; readonly question: FsQuestion}
  /** Followers are connected: send small records along with the commits. */
  | {readonly type: 'wants-records'; readonly isWanted: boolean}
  | {readonly type: 'snapshot'; readonly request: number; readonly id: string}
  /** One more run of pages may be sent. */
  | {readonly type: 'snapshot-more'; readonly request: number}
  | {readonly type: 'snapshot-end'; readonly request: number}
  /** What `.primary` and `.lag` show on a follower. */
  | {readonly type: 'primary'; readonly hostname: string | undefined}
  | {readonly type: 'heard'; readonly timestampMs: number}
  /** A follower's catalogue changed. */
  | {readonly type: 'followed'; readonly id: string; readonly name: string}
  /** The files of a followed database are about to get this name; `followed` tells that they have it. */
  | {readonly type: 'moving'; readonly id: string; readonly name: string}
  | {readonly type: 'unfollowed'; readonly id: string}
  | {readonly type: 'attached'; readonly id: string}
  | {readonly type: 'stop'};

export type FsEvent =
  | LogMessage
  | {readonly type: 'ready'; readonly databases: readonly DatabaseInfo[]; readonly dropped: readonly string[]}
  | {readonly type: 'answer'; readonly request: number; readonly answer: FsAnswer}
  | {
      readonly type: 'committed';
      readonly id: string;
      readonly entry: LogEntry;
      readonly record: Uint8Array | undefined;
    }
  | {readonly type: 'created' | 'renamed' | 'dropped'; readonly id: string; readonly name: string}
  /** Files that were unlinked and that nobody knows any more. Removing them takes the disk a while. */
  | {readonly type: 'remove'; readonly path: string}
  /** An app opened a followed database that the apply thread has not opened yet. */
  | {readonly type: 'opened'; readonly id: string}
  | {
      readonly type: 'snapshot-start';
      readonly request: number;
      readonly from: Position;
      readonly fromTerm: bigint;
      readonly pageSize: number;
      readonly pageCount: number;
    }
  | {
      readonly type: 'snapshot-pages';
      readonly request: number;
      readonly pgno: number;
      readonly pages: Uint8Array;
    }
  /** All pages were sent; none is newer than `until`. Without it there is no snapshot to be had. */
  | {readonly type: 'snapshot-done'; readonly request: number; readonly until: Position | undefined}
  | {readonly type: 'stopped'; readonly reason: 'unmounted' | 'stopped'};
