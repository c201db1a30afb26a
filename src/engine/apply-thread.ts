import {randomBytes} from 'node:crypto';
import {mkdirSync, readdirSync, renameSync, rmSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {workerData} from 'node:worker_threads';
import {KernelNotifier} from '../fuse/notify.ts';
import {AssertionError} from '../lib/assert.ts';
import {KeepAwake} from '../lib/keep-awake.ts';
import {PageHasher} from '../ltx/checksum.ts';
import {Crc64Factory} from '../ltx/crc64.ts';
import {type ByteSource, bytesSource} from '../ltx/decoder.ts';
import {EMPTY_POSITION, type Position, toTxid} from '../ltx/position.ts';
import {LockBytes} from '../sqlite/lock-bytes.ts';
import type {ApplyCommand, ApplyEvent, ApplyRequest, ApplyThreadData} from './apply-messages.ts';
import {Catalog} from './catalog.ts';
import {type DataPaths, dataPaths, diskThatCrashesAt} from './data-directory.ts';
import {summaryOf} from './database-store.ts';
import {ActiveMarks} from './follow/active-marks.ts';
import {DatabaseFiles, finishRename} from './follow/database-files.ts';
import {type FollowContext, FollowedDatabase} from './follow/followed-database.ts';
import {keepLog} from './follow/kept-log.ts';
import {IncomingTransfer} from './follow/large-transfer.ts';
import {positionAfter} from './follow/record-check.ts';
import type {DatabaseInfo} from './messages.ts';

const BUFFER_SIZE = 1024 * 1024;
const RETRY_MIN_MS = 0.2;
const RETRY_MAX_MS = 20;
const MAINTAIN_INTERVAL_MS = 100;

/** The apply thread: owns the databases that this node follows and writes what comes for them into SQLite's files. */
class ApplyThread {
  readonly #data: ApplyThreadData;
  readonly #paths: DataPaths;
  readonly #catalog: Catalog;
  readonly #context: FollowContext;
  readonly #files: DatabaseFiles;
  readonly #marks: ActiveMarks;
  readonly #databases = new Map<string, FollowedDatabase>();
  readonly #transfers = new Map<number, IncomingTransfer>();
  readonly #cancelled = new Set<number>();
  readonly #keepAwake: KeepAwake;
  #spooled = 0;
  #isReleased = false;

  constructor(data: ApplyThreadData, crc64: Crc64Factory) {
    this.#data = data;
    this.#keepAwake = new KeepAwake(data.keepsAwake);
    this.#paths = dataPaths(data.dataDirectory);
    const disk = diskThatCrashesAt(data.crashAt);
    const lockBytes = new LockBytes(data.pendingByte);
    const lockPgno = (pageSize: number) => lockBytes.lockPgno(pageSize);
    this.#catalog = Catalog.open(disk, this.#paths.catalog);
    this.#files = new DatabaseFiles(disk, data.mountDirectory, this.#paths.files);
    this.#marks = new ActiveMarks(data.dataDirectory, data.epoch.boot);
    for (const name of readdirSync(this.#paths.incoming))
      rmSync(join(this.#paths.incoming, name), {recursive: true, force: true});
    this.#context = {
      disk,
      crc64,
      lockBytes,
      lockPgno,
      directory: this.#paths.databases,
      compress: data.compress,
      pageHasher: new PageHasher(crc64),
      filesDirectory: this.#paths.files,
      mountDirectory: data.mountDirectory,
      notifier: new KernelNotifier(data.fuseFd),
      sync: data.sync,
      buffer: new Uint8Array(BUFFER_SIZE),
      compact: {crc64, compress: false, lockPgno, temporaryPath: () => this.#spoolPath()},
      randomU32: () => randomBytes(4).readUInt32LE(0),
      keepAside: (database, error) => this.#keepAside(database, error),
    };
  }

  start(): void {
    const inUse = new Set(this.#marks.list());
    const databases = [];
    for (const [id, name] of this.#catalog.entries()) this.#add(id, name, inUse.has(id));
    // Where files have to be examined, that comes before the primary is told what is here.
    for (const id of inUse) this.#attachSoon(id);
    for (const [id, database] of this.#databases) {
      const summary = inUse.has(id) ? undefined : this.#catalog.summaryOf(id);
      databases.push(summary === undefined ? this.#infoOf(database) : {id, name: database.name, ...summary});
    }
    this.#post({type: 'databases', databases});
    this.#data.port.on('message', (command: ApplyCommand) => {
      this.#keepAwake.note();
      if (command.type === 'cancel') this.#cancelled.add(command.request);
      else void this.#serve(command.request, command.question);
    });
    setInterval(() => this.#maintain(), MAINTAIN_INTERVAL_MS);
    setInterval(() => this.#keepAwake.tick(), 5 * MAINTAIN_INTERVAL_MS);
  }

  /** One database that can't be opened now must not keep the others from being followed. */
  #infoOf(database: FollowedDatabase): DatabaseInfo {
    try {
      return database.info;
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      const {id, name} = database;
      this.#log('error', 'database not followed for now: its log cannot be opened', {
        name,
        error: (error as Error).message,
      });
      return {id, name, position: EMPTY_POSITION, term: 0n, pageSize: 0, commit: 0};
    }
  }

  #keepAside({id, name, directory}: FollowedDatabase, error: Error): void {
    const kept = join(this.#paths.lost, `${id}-${Date.now()}`);
    mkdirSync(this.#paths.lost, {recursive: true, mode: 0o700});
    renameSync(directory, kept);
    this.#log('error', 'log of a database is damaged; kept it aside, a copy will come', {
      name,
      kept,
      error: error.message,
    });
  }

  /** Answers every question, one way or the other. Those for one database never overlap: main sees to that. */
  async #serve(request: number, question: ApplyRequest): Promise<void> {
    try {
      this.#post({type: 'answer', request, position: await this.#handle(request, question)});
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      const {code = 'APPLY_FAILED', message} = error as NodeJS.ErrnoException;
      this.#post({type: 'refused', request, code, message});
    } finally {
      this.#cancelled.delete(request);
    }
  }

  async #handle(request: number, question: ApplyRequest): Promise<Position | undefined> {
    switch (question.type) {
      case 'attach':
        return await this.#attach(request, this.#open(question.id));
      case 'create':
        return this.#create(question.id, question.name);
      case 'rename':
        return this.#rename(question.id, question.name);
      case 'drop':
        return this.#remove(question.id, name => this.#files.remove(name));
      case 'orphan':
        return this.#orphan(question.id);
      case 'rewind':
        return this.#rewind(question.id, question.reason);
      case 'apply':
        return await this.#apply(request, question.id, question.records);
      case 'prune':
        return this.#prune(question.olderThanMs, question.bytesMax);
      case 'release':
        return this.#release();
      default:
        return await this.#transfer(request, question);
    }
  }

  async #transfer(
    request: number,
    question: Extract<ApplyRequest, {transfer: number}>,
  ): Promise<Position | undefined> {
    if (question.type === 'transfer-begin') {
      this.#transfers.set(
        question.transfer,
        new IncomingTransfer(question.id, question.info, this.#spoolPath()),
      );
      return undefined;
    }
    const transfer = this.#transfers.get(question.transfer);
    if (transfer === undefined)
      throw new Error(`Cannot go on with transfer ${question.transfer}: it is not there`);
    switch (question.type) {
      case 'transfer-pages':
        transfer.writePages(question.pgno, question.bytes);
        return undefined;
      case 'transfer-record':
        transfer.writeRecord(question.bytes);
        return undefined;
      case 'transfer-finish':
      case 'transfer-abort':
        this.#transfers.delete(question.transfer);
        try {
          return question.type === 'transfer-abort' ? undefined : await this.#finish(request, transfer);
        } finally {
          transfer.close();
        }
    }
  }

  async #apply(request: number, id: string, bytes: Uint8Array): Promise<Position> {
    const database = this.#open(id);
    await this.#applyRecords(request, database, database.split(bytesSource(bytes)));
    database.maintain(performance.now());
    return database.info.position;
  }

  /** What is in the log is told in any case: the primary must not send it again only because the files could not follow. */
  async #applyRecords(
    request: number,
    database: FollowedDatabase,
    records: readonly ByteSource[],
  ): Promise<void> {
    try {
      try {
        database.accept(records);
      } finally {
        await this.#retry(request, database, () => database.finishApply());
      }
    } finally {
      this.#changed(database);
    }
  }

  async #finish(request: number, transfer: IncomingTransfer): Promise<Position> {
    const database = this.#open(transfer.id);
    const records = database.split(transfer.records);
    const {info} = transfer;
    if (info.kind === 'record') {
      await this.#applyRecords(request, database, records);
      return database.info.position;
    }
    const pageCount = transfer.mergeRecords(records, this.#context);
    const {position, term} = positionAfter(records, this.#context, {
      position: info.from,
      term: info.fromTerm,
    });
    if (database.hasUntoldLog)
      this.#keepLog(database, 'warn', 'replaced an unknown state; kept its log aside');
    const transaction = database.prepareReplace(
      transfer.image(pageCount),
      {pageSize: info.pageSize, pageCount},
      position,
    );
    try {
      await this.#retry(request, database, () => database.replace(transaction, position, term));
    } finally {
      this.#changed(database);
    }
    return database.info.position;
  }

  async #attach(request: number, database: FollowedDatabase): Promise<Position> {
    await this.#retry(request, database, () => database.attach());
    this.#changed(database);
    return database.info.position;
  }

  /** Tries until no reader is in the way, as long as somebody waits for the answer and the database is there. */
  async #retry(request: number, database: FollowedDatabase, step: () => 'done' | 'again'): Promise<void> {
    for (let pauseMs = RETRY_MIN_MS; step() === 'again'; pauseMs = Math.min(pauseMs * 2, RETRY_MAX_MS)) {
      if (this.#cancelled.has(request)) throw cancelled('the stream has ended');
      await sleep(pauseMs);
      if (!this.#isServed(database)) throw cancelled('the database is gone, or the mount is being released');
    }
  }

  /** False after `#remove` and `#release`, which close it: using it would make its files anew. */
  #isServed(database: FollowedDatabase): boolean {
    return !this.#isReleased && this.#databases.get(database.id) === database;
  }

  #open(id: string): FollowedDatabase {
    const database = this.#databases.get(id);
    if (database === undefined) throw new Error(`Cannot find database ${id}: it was never created here`);
    if (this.#isReleased) throw cancelled('the mount is being released');
    this.#marks.set(id);
    finishRename(id, this.#catalog, this.#files);
    return database;
  }

  #add(id: string, name: string, wasInUse: boolean): FollowedDatabase {
    const database = new FollowedDatabase(this.#context, id, name, {
      wasInUse,
      isTrusted: !wasInUse || this.#marks.isTrusted(id),
      trusted: () => this.#marks.trust(id),
      damaged: error =>
        this.#log('error', 'files of a database are damaged; a copy will replace them', {
          name,
          error: (error as Error).message,
        }),
    });
    this.#databases.set(id, database);
    return database;
  }

  #create(id: string, name: string): undefined {
    this.#makeRoom(name);
    this.#catalog.set(id, name);
    this.#changed(this.#add(id, name, false));
  }

  #makeRoom(name: string): void {
    const holder = this.#catalog.idOf(name);
    if (holder !== undefined) throw new Error(`Cannot take name "${name}": database ${holder} has it`);
    const moved = this.#files.makeRoom(name, Date.now());
    if (moved !== undefined)
      this.#log('warn', 'local file had the name of a database; renamed it', {name, moved});
  }

  #rename(id: string, name: string): undefined {
    const database = this.#open(id);
    if (database.name !== name) {
      database.detach();
      this.#makeRoom(name);
      this.#catalog.beginRename(id, name);
      database.name = name;
      finishRename(id, this.#catalog, this.#files);
    }
    this.#changed(database);
    this.#attachSoon(id);
  }

  /** One that is not there, or no longer, is nothing to remove. */
  #remove(id: string, removeFiles: (name: string) => void): undefined {
    if (!this.#databases.has(id)) return;
    const database = this.#open(id);
    database.close();
    removeFiles(database.name);
    this.#databases.delete(id);
    this.#catalog.drop(id);
    this.#marks.clear(id);
    rmSync(database.directory, {recursive: true, force: true});
  }

  #orphan(id: string): undefined {
    if (!this.#databases.has(id)) return;
    const database = this.#open(id);
    const kept = join(this.#paths.lost, `${id}-${Date.now()}`);
    this.#log('error', 'primary does not know this database; kept it aside', {name: database.name, kept});
    database.close();
    this.#remove(id, name => this.#files.setAside(name, kept));
  }

  #rewind(id: string, reason: string): undefined {
    const message = 'this node has transactions that the primary lost; kept its log aside';
    this.#keepLog(this.#open(id), 'error', message, {reason});
  }

  /** Keeps the log as it is before a snapshot replaces it, and says so once. */
  #keepLog(
    database: FollowedDatabase,
    level: 'warn' | 'error',
    message: string,
    fields: Readonly<Record<string, unknown>> = {},
  ): void {
    const {store, directory, name} = database;
    const log = join(directory, 'log');
    const kept = keepLog(this.#context.disk, store, log, this.#paths.lost, this.#spoolPath());
    if (!kept.isNew) return;
    this.#log(level, message, {name, txid: String(store.position.txid), ...fields, kept: kept.path});
  }

  #prune(olderThanMs: number, bytesMax: number | undefined): undefined {
    for (const database of this.#databases.values()) {
      if (!database.isAttached) continue;
      const {log, checksums} = database.store;
      const keepFrom = toTxid(checksums.durablePosition.txid + 1n);
      log.prune({keepFrom, olderThanMs, nowMs: Date.now(), ...(bytesMax === undefined ? {} : {bytesMax})});
    }
  }

  #release(): undefined {
    this.#isReleased = true;
    for (const database of this.#databases.values()) {
      const wasAttached = database.isAttached;
      database.detach();
      if (wasAttached && database.isSettled) this.#catalog.summarize(database.id, summaryOf(database.store));
      database.close();
      if (database.isSettled) this.#marks.clear(database.id);
    }
  }

  #changed(database: FollowedDatabase): void {
    if (!this.#isServed(database)) return;
    if (database.isAttached) this.#announceAttached(database.id);
    this.#post({type: 'changed', database: database.info});
  }

  readonly #announced = new Set<string>();

  #announceAttached(id: string): void {
    if (this.#announced.has(id)) return;
    this.#announced.add(id);
    this.#post({type: 'attached', id});
  }

  #attachSoon(id: string): void {
    const attempt = async () => {
      const database = this.#databases.get(id);
      if (database === undefined || this.#isReleased) return;
      this.#marks.set(id);
      try {
        finishRename(id, this.#catalog, this.#files);
        await this.#retry(-1, database, () => database.attach());
        this.#changed(database);
      } catch (error) {
        if (error instanceof AssertionError) throw error;
        if (!this.#isServed(database)) return;
        this.#log('warn', 'database not yet opened', {name: database.name, error: (error as Error).message});
        setTimeout(() => void attempt(), 200);
      }
    };
    void attempt();
  }

  #maintain(): void {
    const now = performance.now();
    for (const database of this.#databases.values()) {
      if (this.#catalog.formerNames.has(database.id)) continue;
      try {
        if (database.isBehind) this.#marks.set(database.id);
        database.maintain(now);
      } catch (error) {
        if (error instanceof AssertionError) throw error;
        this.#log('error', 'database not maintained', {name: database.name, error: (error as Error).message});
      }
    }
  }

  #spoolPath(): string {
    return join(this.#paths.incoming, String(++this.#spooled));
  }

  #log(
    level: 'debug' | 'info' | 'warn' | 'error',
    message: string,
    fields: Readonly<Record<string, unknown>>,
  ): void {
    this.#post({type: 'log', level, message, fields});
  }

  #post(event: ApplyEvent): void {
    this.#data.port.postMessage(event);
  }
}

function cancelled(reason: string): Error {
  return Object.assign(new Error(`Cannot apply: ${reason}`), {code: 'APPLY_CANCELLED'});
}

const data = workerData as ApplyThreadData;
new ApplyThread(data, await Crc64Factory.open()).start();
