import {randomBytes} from 'node:crypto';
import {cpSync, mkdirSync, readdirSync, rmSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {workerData} from 'node:worker_threads';
import {KernelNotifier} from '../fuse/notify.ts';
import {AssertionError} from '../lib/assert.ts';
import {KeepAwake} from '../lib/keep-awake.ts';
import {PageHasher} from '../ltx/checksum.ts';
import {Crc64Factory} from '../ltx/crc64.ts';
import {type ByteSource, bytesSource} from '../ltx/decoder.ts';
import {type Position, toTxid} from '../ltx/position.ts';
import {LockBytes} from '../sqlite/lock-bytes.ts';
import type {ApplyCommand, ApplyEvent, ApplyRequest, ApplyThreadData} from './apply-messages.ts';
import {Catalog} from './catalog.ts';
import {type DataPaths, dataPaths, diskThatCrashesAt} from './data-directory.ts';
import {summaryOf} from './database-store.ts';
import {ActiveMarks} from './follow/active-marks.ts';
import {DatabaseFiles} from './follow/database-files.ts';
import {type FollowContext, FollowedDatabase, positionAfter} from './follow/followed-database.ts';
import {IncomingTransfer} from './follow/large-transfer.ts';

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
    this.#files = new DatabaseFiles(data.mountDirectory, this.#paths.files);
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
    };
  }

  start(): void {
    const inUse = new Set(this.#marks.list());
    const databases = [];
    for (const [id, name] of this.#catalog.entries()) this.#add(id, name, inUse.has(id));
    // Where files have to be examined, that comes before the primary is told what is here.
    for (const id of inUse) this.#attachSoon(id);
    for (const [id, database] of this.#databases) {
      const {name} = database;
      const summary = inUse.has(id) ? undefined : this.#catalog.summaryOf(id);
      databases.push(summary === undefined ? database.info : {id, name, ...summary});
    }
    this.#post({type: 'databases', databases});
    this.#data.port.on('message', (command: ApplyCommand) => {
      this.#keepAwake.note();
      if (command.type === 'cancel') this.#cancelled.add(command.request);
      else void this.#serve(command.request, command.question);
    });
    setInterval(() => this.#maintain(), MAINTAIN_INTERVAL_MS);
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
    return this.#changed(database);
  }

  async #applyRecords(
    request: number,
    database: FollowedDatabase,
    records: readonly ByteSource[],
  ): Promise<void> {
    try {
      database.accept(records);
    } finally {
      await this.#retry(request, () => database.finishApply());
    }
  }

  async #finish(request: number, transfer: IncomingTransfer): Promise<Position> {
    const database = this.#open(transfer.id);
    const records = database.split(transfer.records);
    const {info} = transfer;
    if (info.kind === 'record') {
      await this.#applyRecords(request, database, records);
      return this.#changed(database);
    }
    const pageCount = transfer.mergeRecords(records, this.#context);
    const {position, term} = positionAfter(records, this.#context, {
      position: info.from,
      term: info.fromTerm,
    });
    const transaction = database.prepareReplace(
      transfer.image(pageCount),
      {pageSize: info.pageSize, pageCount},
      position,
    );
    await this.#retry(request, () => database.replace(transaction, position, term));
    return this.#changed(database);
  }

  async #attach(request: number, database: FollowedDatabase): Promise<Position> {
    await this.#retry(request, () => database.attach());
    return this.#changed(database);
  }

  /** Tries until no reader is in the way, as long as somebody waits for the answer. */
  async #retry(request: number, step: () => 'done' | 'again'): Promise<void> {
    for (let pauseMs = RETRY_MIN_MS; step() === 'again'; pauseMs = Math.min(pauseMs * 2, RETRY_MAX_MS)) {
      if (this.#cancelled.has(request))
        throw Object.assign(new Error('Cannot apply: the stream has ended'), {code: 'APPLY_CANCELLED'});
      await sleep(pauseMs);
    }
  }

  #open(id: string): FollowedDatabase {
    const database = this.#databases.get(id);
    if (database === undefined) throw new Error(`Cannot find database ${id}: it was never created here`);
    if (this.#isReleased)
      throw Object.assign(new Error('Cannot apply: the mount is being released'), {code: 'APPLY_CANCELLED'});
    this.#marks.set(id);
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
    const moved = this.#files.makeRoom(name, Date.now());
    if (moved !== undefined)
      this.#log('warn', 'local file had the name of a database; renamed it', {name, moved});
    this.#catalog.set(id, name);
    this.#changed(this.#add(id, name, false));
  }

  #rename(id: string, name: string): undefined {
    const database = this.#open(id);
    database.detach();
    this.#files.rename(database.name, name);
    this.#catalog.set(id, name);
    database.name = name;
    this.#changed(database);
    this.#attachSoon(id);
  }

  #remove(id: string, removeFiles: (name: string) => void): undefined {
    const database = this.#open(id);
    database.close();
    removeFiles(database.name);
    this.#databases.delete(id);
    this.#catalog.drop(id);
    this.#marks.clear(id);
    rmSync(database.directory, {recursive: true, force: true});
  }

  #orphan(id: string): undefined {
    const database = this.#open(id);
    const kept = join(this.#paths.lost, `${id}-${Date.now()}`);
    this.#log('error', 'primary does not know this database; kept it aside', {name: database.name, kept});
    database.close();
    this.#remove(id, name => this.#files.setAside(name, kept));
  }

  /** Keeps the log as it is before a snapshot replaces it. */
  #rewind(id: string, reason: string): undefined {
    const database = this.#open(id);
    const kept = join(this.#paths.lost, `${id}-${Date.now()}`);
    mkdirSync(this.#paths.lost, {recursive: true});
    cpSync(join(database.directory, 'log'), kept, {recursive: true});
    const {txid} = database.store.position;
    this.#log('error', 'this node has transactions that the primary lost; kept its log aside', {
      name: database.name,
      txid: String(txid),
      reason,
      kept,
    });
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

  #changed(database: FollowedDatabase): Position {
    const {info} = database;
    if (database.isAttached) this.#announceAttached(database.id);
    this.#post({type: 'changed', database: info});
    return info.position;
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
        await this.#retry(-1, () => database.attach());
        this.#changed(database);
      } catch (error) {
        if (error instanceof AssertionError) throw error;
        this.#log('warn', 'database not yet opened', {name: database.name, error: (error as Error).message});
        setTimeout(() => void attempt(), 200);
      }
    };
    void attempt();
  }

  #maintain(): void {
    this.#keepAwake.tick();
    const now = performance.now();
    for (const database of this.#databases.values()) {
      try {
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

const data = workerData as ApplyThreadData;
new ApplyThread(data, await Crc64Factory.open()).start();
