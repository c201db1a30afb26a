import {mkdirSync} from 'node:fs';
import {join} from 'node:path';
import type {Disk} from '../lib/disk.ts';
import {replayChecksums} from '../log/checksum-replay.ts';
import type {LogEntry} from '../log/log-entry.ts';
import {PageChecksums} from '../log/page-checksums.ts';
import {TransactionLog} from '../log/transaction-log.ts';
import type {Crc64Factory} from '../ltx/crc64.ts';
import {type Checksum, type Position, toTxid} from '../ltx/position.ts';
import type {LockBytes} from '../sqlite/lock-bytes.ts';
import type {DatabaseSummary} from './catalog.ts';

/** What every database of a node is opened with. */
export interface StoreContext {
  readonly disk: Disk;
  /** `<data>/databases`. */
  readonly directory: string;
  readonly crc64: Crc64Factory;
  readonly lockBytes: LockBytes;
  readonly compress: boolean;
}

/** Page checksums that a transaction changes, staged until it is in the log. */
export interface StagedChecksums {
  readonly pageSize: number;
  readonly commit: number;
  readonly pgnos: number[];
  readonly checksums: Checksum[];
}

/** The transaction log and the page checksums of one database. */
export class DatabaseStore {
  readonly id: string;
  readonly log: TransactionLog;
  readonly checksums: PageChecksums;

  #isRebuilding: boolean;

  private constructor(id: string, log: TransactionLog, checksums: PageChecksums, isRebuilding: boolean) {
    this.id = id;
    this.log = log;
    this.checksums = checksums;
    this.#isRebuilding = isRebuilding;
  }

  /**
   * Opens the database `id`, or makes an empty one. After an unclean end the log's tail is checked and the checksums are
   * brought up to it. `unconfirmed` is a last transaction whose commit never happened: its record is taken back.
   */
  static open(context: StoreContext, id: string, isUnclean: boolean, unconfirmed = 0n): DatabaseStore {
    const directory = join(context.directory, id);
    mkdirSync(directory, {recursive: true, mode: 0o700});
    const {disk, crc64, lockBytes} = context;
    const lockPgno = (pageSize: number) => lockBytes.lockPgno(pageSize);
    const log = TransactionLog.open({
      disk,
      directory: join(directory, 'log'),
      crc64,
      lockPgno,
      verifyTail: isUnclean,
    });
    if (unconfirmed > 0n && log.position.txid === unconfirmed)
      log.cutAfter(toTxid(unconfirmed - 1n), () => undefined);
    const checksums = PageChecksums.open({
      disk,
      path: join(directory, 'checksums'),
      lockPgno,
      syncLog: () => log.sync(),
    });
    const isRebuilding =
      replayChecksums({checksums, log, crc64, lockPgno}) === 'rebuild' && log.position.txid > 0n;
    return new DatabaseStore(id, log, checksums, isRebuilding);
  }

  get position(): Position {
    return this.log.position;
  }

  get term(): bigint {
    return this.log.term;
  }

  /** The page checksums were lost: the table is empty, whatever the log says. */
  get isRebuilding(): boolean {
    return this.#isRebuilding;
  }

  /** Takes over the checksums of all pages as they are at the log's position. */
  adoptRebuilt(staged: StagedChecksums): void {
    adoptChecksums(this.checksums, staged);
    this.#isRebuilding = false;
  }

  /** Takes over the checksums of a transaction that the log now holds. */
  adopt(staged: StagedChecksums, entry: LogEntry): void {
    const adoption = this.adoptInSteps(staged, entry);
    while (!adoption.step());
  }

  /** As `adopt`; nothing else may be prepared before the steps that are returned are done. */
  adoptInSteps(staged: StagedChecksums, entry: LogEntry): ChecksumAdoption {
    this.#isRebuilding = false;
    return new ChecksumAdoption(this.checksums, staged, entry);
  }

  /** Takes over the checksums of a whole database. */
  adoptImage(staged: StagedChecksums): void {
    adoptChecksums(this.checksums, staged);
  }

  /** Makes log and checksums durable and forgets nothing: the next open reads little. Waits for the disk. */
  flush(): void {
    this.log.sync();
    if (!this.#isRebuilding) this.checksums.flush({position: this.position, term: this.term});
  }

  close(): void {
    this.log.close();
    this.checksums.close();
  }
}

const PAGES_PER_STEP = 4096;

/** Takes over the checksums of one transaction in steps of a millisecond or two. A step that failed can be done again. */
export class ChecksumAdoption {
  readonly #checksums: PageChecksums;
  readonly #staged: StagedChecksums;
  readonly #entry: LogEntry;
  #next = 0;

  /** Size and page size are taken over at once. */
  constructor(checksums: PageChecksums, staged: StagedChecksums, entry: LogEntry) {
    this.#checksums = checksums;
    this.#staged = staged;
    this.#entry = entry;
    checksums.setPageSize(staged.pageSize);
    checksums.resize(staged.commit);
  }

  /** Returns whether all is done. */
  step(): boolean {
    const {pgnos, checksums} = this.#staged;
    const end = Math.min(pgnos.length, this.#next + PAGES_PER_STEP);
    for (; this.#next < end; this.#next++) this.#checksums.set(pgnos[this.#next], checksums[this.#next]);
    if (end < pgnos.length) return false;
    if (this.#checksums.checksum === this.#entry.postApplyChecksum) return true;
    throw new Error(
      `Cannot take over page checksums: they do not add up to transaction ${this.#entry.maxTxid}`,
    );
  }
}

function adoptChecksums(checksums: PageChecksums, staged: StagedChecksums): void {
  checksums.setPageSize(staged.pageSize);
  checksums.resize(staged.commit);
  for (let i = 0; i < staged.pgnos.length; i++) checksums.set(staged.pgnos[i], staged.checksums[i]);
}

export function summaryOf({position, term, checksums}: DatabaseStore): DatabaseSummary {
  return {position, term, pageSize: checksums.pageSize, commit: checksums.pageCount};
}
