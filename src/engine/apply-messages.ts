import type {MessagePort} from 'node:worker_threads';
import type {Position, Txid} from '../ltx/position.ts';
import type {DatabaseInfo, LogMessage, ThreadData} from './messages.ts';

export interface ApplyThreadData extends ThreadData {
  readonly port: MessagePort;
  /** eventfd and port of the fs thread are main's; the apply thread reaches the kernel by itself. */
  readonly sync: 'normal' | 'off';
}

/** What a large transfer will hold: whole records, or all pages of a database followed by the records that make them consistent. */
export type TransferInfo =
  | {readonly kind: 'record'; readonly minTxid: Txid; readonly maxTxid: Txid; readonly size: number}
  | {
      readonly kind: 'snapshot';
      readonly from: Position;
      readonly fromTerm: bigint;
      readonly pageSize: number;
      readonly pageCount: number;
    };

export type ApplyRequest =
  /** Opens the database, so that its locks are held: an app has opened it. */
  | {readonly type: 'attach'; readonly id: string}
  | {readonly type: 'create'; readonly id: string; readonly name: string}
  | {readonly type: 'rename'; readonly id: string; readonly name: string}
  | {readonly type: 'drop'; readonly id: string}
  | {readonly type: 'orphan'; readonly id: string}
  | {readonly type: 'rewind'; readonly id: string; readonly reason: string}
  | {readonly type: 'apply'; readonly id: string; readonly records: Uint8Array}
  | {
      readonly type: 'transfer-begin';
      readonly id: string;
      readonly transfer: number;
      readonly info: TransferInfo;
    }
  | {
      readonly type: 'transfer-pages';
      readonly transfer: number;
      readonly pgno: number;
      readonly bytes: Uint8Array;
    }
  | {readonly type: 'transfer-record'; readonly transfer: number; readonly bytes: Uint8Array}
  | {readonly type: 'transfer-finish'; readonly transfer: number}
  | {readonly type: 'transfer-abort'; readonly transfer: number}
  | {readonly type: 'prune'; readonly olderThanMs: number; readonly bytesMax: number | undefined}
  /** Closes everything in the mount. */
  | {readonly type: 'release'};

export type ApplyCommand =
  | {readonly type: 'ask'; readonly request: number; readonly question: ApplyRequest}
  /** Nobody waits for the answer any more: stop waiting for readers. */
  | {readonly type: 'cancel'; readonly request: number};

export type ApplyEvent =
  | LogMessage
  | {readonly type: 'databases'; readonly databases: readonly DatabaseInfo[]}
  /** The daemon holds the database's locks: apps can't get in its way any more. */
  | {readonly type: 'attached'; readonly id: string}
  /** How a database stands after a change. */
  | {readonly type: 'changed'; readonly database: DatabaseInfo}
  | {readonly type: 'answer'; readonly request: number; readonly position: Position | undefined}
  | {readonly type: 'refused'; readonly request: number; readonly code: string; readonly message: string};
