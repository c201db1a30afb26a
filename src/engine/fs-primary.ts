import {openFilesMax} from '../lib/open-files.ts';
import type {LogEntry} from '../log/log-entry.ts';
import {toTxid} from '../ltx/position.ts';
import type {CapturedDatabase} from './capture/captured-database.ts';
import {CapturedDatabases} from './capture/captured-databases.ts';
import {PrimaryFiles} from './capture/primary-files.ts';
import {Seals} from './capture/seal.ts';
import {SnapshotReader} from './capture/snapshot-reader.ts';
import type {Catalog} from './catalog.ts';
import {dataPaths} from './data-directory.ts';
import {type StoreContext, summaryOf} from './database-store.ts';
import type {Flusher} from './flusher.ts';
import {DatabaseFiles, finishRename} from './follow/database-files.ts';
import type {DatabaseInfo, FsAnswer, FsCommand, FsQuestion, FsThreadData, LogMessage} from './messages.ts';
import {errnoOf} from './mount/context.ts';
import type {WaitList} from './mount/database-hooks.ts';
import type {InodeTable} from './mount/inode-table.ts';
import type {Outbox} from './outbox.ts';

export interface FsPrimaryOptions {
  readonly data: FsThreadData;
  readonly store: StoreContext;
  readonly catalog: Catalog;
  readonly flusher: Flusher;
  readonly inodes: InodeTable;
  readonly outbox: Outbox;
  readonly resume: (waits: WaitList) => void;
}

interface RunningSnapshot {
  readonly database: CapturedDatabase;
  readonly reader: SnapshotReader;
  /** Runs that may still be sent. */
  credit: number;
}

const LOADED_MAX = 1000;
/** Of the files that the process may open, a loaded database gets this part: about twice what it needs. */
const FILES_PER_DATABASE = 16;
const WORK_MS = 1;
/** Records up to this size go along with the event of their commit. */
const RECORD_SIZE_MAX = 256 * 1024;
const SNAPSHOT_CREDIT = 4;

/** The part of the fs thread that a primary has: its databases, and main's questions about their logs. */
export class FsPrimary {
  readonly files: PrimaryFiles;
  readonly #options: FsPrimaryOptions;
  readonly #databases: CapturedDatabases;
  readonly #snapshots = new Map<number, RunningSnapshot>();
  #wantsRecords = false;

  constructor(options: FsPrimaryOptions) {
    this.#options = options;
    const {data, store, catalog, flusher, inodes, outbox, resume} = options;
    this.#databases = new CapturedDatabases({
      context: {
        ...store,
        term: data.term,
        flusher,
        resume,
        nowMs: Date.now,
        register: (database, id) => this.#databases.registered(database, id),
        committed: (database, entry) => this.#committed(database, entry),
        checked: (database, isChecked) => this.#databases.checked(database, isChecked),
        report: (database, event, error) =>
          this.#log(error === undefined ? 'info' : 'error', event, {
            database: database.name,
            error: describeError(error),
          }),
      },
      catalog,
      seals: new Seals(data.dataDirectory, data.epoch),
      filesDirectory: dataPaths(data.dataDirectory).files,
      created: (id, name) => outbox.add({type: 'created', id, name}),
      renamed: (id, name) => outbox.add({type: 'renamed', id, name}),
      dropped: (id, name) => outbox.add({type: 'dropped', id, name}),
      putAway: database => this.files.forget(database),
      loadedMax: Math.min(LOADED_MAX, Math.floor(openFilesMax() / FILES_PER_DATABASE)),
    });
    this.files = new PrimaryFiles(inodes, this.#databases);
  }

  /** Recovers what was in use, then tells main of all databases. Calls `gotOn` after each of them. */
  start(gotOn: () => void): void {
    const {catalog, outbox} = this.#options;
    this.#finishRenames();
    this.#databases.recoverActive(gotOn);
    const databases: DatabaseInfo[] = [];
    for (const [id, name] of catalog.entries()) {
      const store = this.#databases.loadedById(id)?.store;
      const summary = store === undefined ? catalog.summaryOf(id) : summaryOf(store);
      const found = summary ?? this.#summaryByOpening(id);
      if (found !== undefined) databases.push({id, name, ...found});
      gotOn();
    }
    outbox.add({type: 'ready', databases, dropped: [...catalog.dropped]});
  }

  /** What the apply thread left in the middle of a rename, when this node still was a follower. No request is served yet. */
  #finishRenames(): void {
    const {data, store, catalog} = this.#options;
    const {files} = dataPaths(data.dataDirectory);
    const databaseFiles = new DatabaseFiles(store.disk, files, files);
    for (const id of catalog.formerNames.keys()) finishRename(id, catalog, databaseFiles);
  }

  work(): boolean {
    const deadline = performance.now() + WORK_MS;
    const hasMore = this.#databases.work(deadline);
    return this.#sendSnapshots() || hasMore;
  }

  sweep(): void {
    const inUse = new Set([...this.#snapshots.values()].map(snapshot => snapshot.database));
    if (this.#databases.sweep(database => inUse.has(database))) this.files.forgetAll();
  }

  close(): void {
    this.#databases.close();
  }

  obey(command: FsCommand): void {
    switch (command.type) {
      case 'ask':
        this.#options.outbox.add({
          type: 'answer',
          request: command.request,
          answer: this.#answerOrFail(command.question),
        });
        return;
      case 'wants-records':
        this.#wantsRecords = command.isWanted;
        return;
      case 'snapshot':
        this.#startSnapshot(command.request, command.id);
        return;
      case 'snapshot-more': {
        const snapshot = this.#snapshots.get(command.request);
        if (snapshot !== undefined) snapshot.credit++;
        return;
      }
      case 'snapshot-end':
        this.#snapshots.delete(command.request);
        return;
      default:
        return; // The rest is for followers.
    }
  }

  #summaryByOpening(id: string) {
    const store = this.#databases.openById(id)?.store;
    return store === undefined ? undefined : summaryOf(store);
  }

  #committed(database: CapturedDatabase, entry: LogEntry): void {
    const {id, store} = database;
    if (id === undefined || store === undefined) return;
    let record: Uint8Array | undefined;
    if (this.#wantsRecords && !this.#options.outbox.isBacklogged && entry.size <= RECORD_SIZE_MAX) {
      record = new Uint8Array(entry.size);
      store.log.read(entry).read(0, record);
    }
    this.#options.outbox.add({type: 'committed', id, entry, record});
  }

  /** A database that can't be opened now has no answer: whoever asks tries again. */
  #answerOrFail(question: FsQuestion): FsAnswer {
    try {
      return this.#answer(question);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      return {kind: 'failed', error: describeError(error)};
    }
  }

  #answer(question: FsQuestion): FsAnswer {
    switch (question.kind) {
      case 'entries': {
        const log = this.#databases.openById(question.id)?.store?.log;
        if (log === undefined || question.after < log.base.position.txid)
          return {kind: 'entries', entries: undefined};
        const entries = [];
        let from = toTxid(question.after + 1n);
        while (entries.length < question.countMax) {
          const found = log.entries(from, Math.min(256, question.countMax - entries.length));
          const last = found.at(-1);
          if (last === undefined) break;
          for (const entry of found) entries.push({entry, path: log.path(entry)});
          from = toTxid(last.maxTxid + 1n);
        }
        return {kind: 'entries', entries};
      }
      case 'agrees':
        return {kind: 'agrees', agreement: this.#agrees(question)};
      case 'prune':
        this.#databases.prune(question);
        return {kind: 'prune'};
    }
  }

  #agrees({id, position, term}: Extract<FsQuestion, {kind: 'agrees'}>): 'yes' | 'no' | 'unknown' {
    const log = this.#databases.openById(id)?.store?.log;
    if (log === undefined || position.txid < log.base.position.txid) return 'unknown';
    const {base} = log;
    if (position.txid === base.position.txid)
      return base.position.checksum === position.checksum && base.term === term ? 'yes' : 'no';
    const entry = log.entry(position.txid);
    if (entry === undefined || entry.maxTxid !== position.txid) return 'no';
    return entry.postApplyChecksum === position.checksum && entry.term === term ? 'yes' : 'no';
  }

  #startSnapshot(request: number, id: string): void {
    const {outbox, store} = this.#options;
    const database = this.#openForSnapshot(id);
    const checksums = database?.store?.checksums;
    if (
      database === undefined ||
      checksums === undefined ||
      database.store?.position.txid === 0n ||
      checksums.pageSize === 0
    ) {
      outbox.add({type: 'snapshot-done', request, until: undefined});
      return;
    }
    const reader = new SnapshotReader(database, store.lockBytes.lockPgno(checksums.pageSize));
    this.#snapshots.set(request, {database, reader, credit: SNAPSHOT_CREDIT});
    outbox.add({type: 'snapshot-start', request, ...reader.start});
  }

  #openForSnapshot(id: string): CapturedDatabase | undefined {
    try {
      return this.#databases.openById(id);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      this.#log('error', 'database not opened', {id, error: describeError(error)});
      return undefined;
    }
  }

  /** One run of each snapshot that has credit. Returns whether one could go on at once. */
  #sendSnapshots(): boolean {
    let hasMore = false;
    for (const [request, snapshot] of this.#snapshots) {
      if (snapshot.credit <= 0) continue;
      snapshot.database.lastUsedMs = Date.now();
      if (snapshot.reader.isVoid) {
        this.#endSnapshot(request, false);
        continue;
      }
      const run = snapshot.reader.next();
      if (run === undefined) {
        // Whatever is in the pages must be in the log before `until` is told.
        if (snapshot.database.isBusy || snapshot.database.failure !== undefined) continue;
        this.#endSnapshot(request, true);
      } else if (run.pages.length > 0) {
        snapshot.credit--;
        this.#options.outbox.add({type: 'snapshot-pages', request, pgno: run.pgno, pages: run.pages});
      }
      hasMore ||= snapshot.credit > 0;
    }
    return hasMore;
  }

  #endSnapshot(request: number, isWhole: boolean): void {
    const snapshot = this.#snapshots.get(request);
    this.#snapshots.delete(request);
    this.#options.outbox.add({
      type: 'snapshot-done',
      request,
      until: isWhole ? snapshot?.database.store?.position : undefined,
    });
  }

  #log(level: LogMessage['level'], message: string, fields: LogMessage['fields']): void {
    this.#options.outbox.add({type: 'log', level, message, fields});
  }
}

/** Errors lose their class when they are cloned: what matters of them, as data. */
export function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const {code} = error as NodeJS.ErrnoException;
  return {message: error.message, code, stack: code === undefined ? error.stack : undefined};
}
