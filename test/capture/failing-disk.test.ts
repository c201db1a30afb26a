import {mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import Database from 'better-sqlite3';
import {afterEach, beforeEach, describe, expect, test} from 'vitest';
import type {CaptureContext, CapturedDatabase} from '../../src/engine/capture/captured-database.ts';
import {CapturedDatabases} from '../../src/engine/capture/captured-databases.ts';
import {Seals} from '../../src/engine/capture/seal.ts';
import {Catalog} from '../../src/engine/catalog.ts';
import {Flusher} from '../../src/engine/flusher.ts';
import {Disk} from '../../src/lib/disk.ts';
import {Crc64Factory} from '../../src/ltx/crc64.ts';
import {LockBytes} from '../../src/sqlite/lock-bytes.ts';
import {expectLogEqualsDatabase} from '../support/log-oracle.ts';

const IDLE_MS = 100_000;

/** The databases of one daemon, on a disk of which the call `failing` finds no room. */
class Daemon {
  readonly databases: CapturedDatabases;
  readonly created: string[] = [];
  readonly reports: string[] = [];
  failing = '';
  nowMs = 1_000_000;

  constructor(folder: string, crc64: Crc64Factory) {
    const disk = new Disk({
      onCall: name => {
        if (name === this.failing)
          throw Object.assign(new Error(`no room for ${name}`), {code: 'ENOSPC', errno: -28});
      },
    });
    const context: CaptureContext = {
      disk,
      directory: join(folder, 'databases'),
      crc64,
      lockBytes: new LockBytes(),
      compress: true,
      term: 1n,
      flusher: new Flusher({threadCount: 0, threadCountMax: 0, fuseFd: -1, wakeFd: -1}),
      nowMs: () => this.nowMs,
      register: (database, id) => this.databases.registered(database, id),
      checked: (database, isChecked) => this.databases.checked(database, isChecked),
      committed: () => undefined,
      resume: () => undefined,
      report: (database, event) => this.reports.push(`${database.name}: ${event}`),
    };
    this.databases = new CapturedDatabases({
      context,
      catalog: Catalog.open(disk, join(folder, 'catalog')),
      seals: new Seals(folder, {boot: 'boot', run: 'run'}),
      filesDirectory: join(folder, 'files'),
      created: id => this.created.push(id),
      renamed: () => undefined,
      dropped: () => undefined,
      putAway: () => undefined,
      loadedMax: 100,
    });
  }

  open(name: string): CapturedDatabase {
    return this.databases.openOrBegin(name);
  }

  /** Captures what was written to the file. */
  capture(name: string): void {
    const database = this.open(name);
    database.captureFile(true);
    while (database.work(Number.POSITIVE_INFINITY));
  }
}

describe('capture on a disk that fails', () => {
  let folder: string;
  let crc64: Crc64Factory;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ferrite-capture-'));
    for (const name of ['files', 'databases', 'active']) mkdirSync(join(folder, name));
    crc64 = await Crc64Factory.open();
  });
  afterEach(() => {
    rmSync(folder, {recursive: true});
  });

  function write(name: string, sql: string): void {
    const db = new Database(join(folder, 'files', name));
    db.exec(sql);
    db.close();
  }

  /** A daemon that has captured both databases and was stopped. */
  function makeTwo(): Daemon {
    const daemon = new Daemon(folder, crc64);
    for (const name of ['a.db', 'b.db']) {
      write(name, 'CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(9000))');
      daemon.capture(name);
    }
    daemon.databases.close();
    return daemon;
  }

  for (const failing of ['catalog:append', 'log:base-write', 'dirty:append']) {
    test(`a new database is registered once, as soon as ${failing} succeeds`, async () => {
      const daemon = new Daemon(folder, crc64);
      write('a.db', 'CREATE TABLE t (a)');
      daemon.failing = failing;
      daemon.capture('a.db');
      daemon.capture('a.db');
      expect([daemon.created, readdirSync(join(folder, 'active'))]).toEqual([[], []]);
      expect(daemon.open('a.db').failure).toMatchObject({code: 'ENOSPC'});
      daemon.failing = '';
      daemon.capture('a.db');
      expect(daemon.created.length).toBe(1);
      expect(readdirSync(join(folder, 'databases'))).toEqual(daemon.created);
      expect(readdirSync(join(folder, 'active'))).toEqual(daemon.created);
      await expectLogEqualsDatabase({data: folder, mount: ''}, 'a.db', {isStopped: true});
    });
  }

  test('a database that could not be loaded is loaded whole the next time', async () => {
    makeTwo();
    write('a.db', 'INSERT INTO t VALUES (2)');
    const daemon = new Daemon(folder, crc64);
    renameSync(join(folder, 'active'), join(folder, 'away'));
    expect(() => daemon.open('a.db')).toThrow(expect.objectContaining({code: 'ENOENT'}));
    renameSync(join(folder, 'away'), join(folder, 'active'));
    const database = daemon.open('a.db');
    while (database.work(Number.POSITIVE_INFINITY));
    await expectLogEqualsDatabase({data: folder, mount: ''}, 'a.db', {isStopped: true});
  });

  for (const failing of ['checksums:entries-write', 'log:mark-write', 'catalog:append']) {
    test(`${failing} fails where idle databases are put away: reported, and captured when they are used again`, async () => {
      makeTwo();
      const daemon = new Daemon(folder, crc64);
      for (const name of ['a.db', 'b.db']) {
        daemon.open(name);
        write(name, 'INSERT INTO t VALUES (2)');
        daemon.open(name).dirtyFile.noteUnknown();
        daemon.capture(name);
      }
      daemon.failing = failing;
      daemon.nowMs += IDLE_MS;
      expect(daemon.databases.sweep(() => false)).toBe(true);
      expect(daemon.reports.map(report => report.slice(0, 4))).toEqual(['a.db', 'b.db']);
      daemon.failing = '';
      write('a.db', 'INSERT INTO t VALUES (3)');
      daemon.open('a.db').dirtyFile.noteUnknown();
      daemon.capture('a.db');
      for (const name of ['a.db', 'b.db'])
        await expectLogEqualsDatabase({data: folder, mount: ''}, name, {isStopped: true});
    });
  }

  test('a database that can not be recovered at a start leaves the others alone', async () => {
    makeTwo();
    const dead = new Daemon(folder, crc64);
    for (const name of ['a.db', 'b.db']) dead.open(name);
    const list = join(folder, 'databases', dead.open('a.db').id ?? '', 'dirty');
    renameSync(list, `${list}-away`);
    mkdirSync(list);
    const daemon = new Daemon(folder, crc64);
    daemon.databases.recoverActive(() => undefined);
    expect(daemon.reports).toEqual(['a.db: database not recovered']);
    expect(daemon.databases.position('b.db')?.txid).toBe(1n);
    expect(() => daemon.open('a.db')).toThrow(expect.objectContaining({code: 'EISDIR'}));
    rmSync(list, {recursive: true});
    renameSync(`${list}-away`, list);
    expect(daemon.databases.position('a.db')?.txid).toBe(1n);
  });
});
