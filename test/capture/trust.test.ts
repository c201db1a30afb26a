import {once} from 'node:events';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import {createServer, type Server} from 'node:net';
import {join} from 'node:path';
import Database from 'better-sqlite3';
import {afterEach, describe, expect, test} from 'vitest';
import {decodeWalHeader, frameOffset} from '../../src/sqlite/wal.ts';
import {databaseId, expectLogEqualsDatabase, txidOf} from '../support/log-oracle.ts';
import {pretendReboot, TestNode, until} from '../support/node.ts';
import {App, runSqlite, sqliteApp} from './apps.ts';

async function isListening(server: Server, port: number): Promise<boolean> {
  try {
    const listening = once(server, 'listening');
    server.listen(port);
    await listening;
    return true;
  } catch {
    return false;
  }
}

const HOLD = `Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);`;

describe('what a start believes of files that were in use', {timeout: 120_000}, () => {
  let node: TestNode;
  const apps: App[] = [];

  afterEach(async () => {
    for (const app of apps.splice(0)) app.process.kill('SIGKILL');
    await node?.destroy();
  });

  /** Starts an app that makes a database of 100 rows and keeps it open. Resolves when it is committed and in the log. */
  async function hold(name: string, mode: string, rowSize = 1000): Promise<App> {
    const app = sqliteApp(
      node.path(name),
      `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
      db.exec('WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t SELECT i, randomblob(${rowSize}) FROM n');
      db.pragma('wal_checkpoint(TRUNCATE)'); for (let i = 0; i < 5; i++) db.prepare('UPDATE t SET b = ? WHERE a = 3').run(i);
      print('ready'); ${HOLD}`,
    );
    apps.push(app);
    await until(
      () => app.stdout.includes('ready'),
      60_000,
      () => 'no database',
    );
    await until(
      async () => (await txidOf(node, name)) >= 1,
      60_000,
      () => `not captured: ${node.log}`,
    );
    return app;
  }

  async function killAll(): Promise<void> {
    await node.killAll();
    await new App('umount', ['-l', node.mount]).ended;
    for (const app of apps.splice(0)) {
      app.process.kill('SIGKILL');
      await app.ended;
    }
  }

  /** Writes to the file behind the back of everybody. */
  function damage(name: string, pgno: number): void {
    const fd = openSync(node.backing(name), 'r+');
    writeSync(fd, Buffer.alloc(64, 0xdb), 0, 64, pgno * 4096 - 64);
    closeSync(fd);
  }

  const markOf = (name: string) =>
    readFileSync(join(node.data, 'active', databaseId(node.data, name) ?? ''), 'utf8');

  test('a first start after a loss of power that fails leaves the comparison to the next', async () => {
    node = await TestNode.start({role: 'primary'});
    await hold('a.db', 'DELETE');
    await killAll();
    pretendReboot(node);
    damage('a.db', 9);
    const other = createServer();
    await until(
      () => isListening(other, node.port), // The daemon that was killed may still have the port.
      10_000,
      () => 'port not free',
    );
    await expect(node.restart()).rejects.toThrow('before it was ready');
    other.close();
    await node.restart();
    await expectLogEqualsDatabase(node, 'a.db');
    await until(
      () => !markOf('a.db').startsWith('-'),
      10_000,
      () => 'never checked',
    );
  });

  test('a comparison that dies with its daemon, or that a stop ends, is begun again', async () => {
    node = await TestNode.start({role: 'primary'});
    await hold('a.db', 'DELETE', 500_000);
    await killAll();
    damage('a.db', 10_000);
    await node.restart();
    await node.killDaemon();
    expect(markOf('a.db')).toMatch(/^- - /);
    const pid = node.daemonPid;
    await until(
      () => node.daemonPid !== pid,
      20_000,
      () => node.log,
    );
    expect(await node.stop()).toBe(0);
    expect(markOf('a.db')).toMatch(/^- - /);
    await node.restart();
    await until(
      () => !markOf('a.db').startsWith('-'),
      30_000,
      () => 'never checked',
    );
    await expectLogEqualsDatabase(node, 'a.db');
  });

  test('while all pages are compared, apps read, and write to the WAL', async () => {
    node = await TestNode.start({role: 'primary'});
    await hold('a.db', 'WAL', 500_000);
    await killAll();
    const mark = join(node.data, 'active', databaseId(node.data, 'a.db') ?? '');
    const app = sqliteApp(
      node.path('a.db'),
      `while (!(fs.readFileSync('${mark}', 'utf8').startsWith('- ') && fs.existsSync(path))) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
      const db = new Database(path); db.pragma('wal_autocheckpoint = 0'); db.exec('UPDATE t SET b = 7 WHERE a = 3');
      print(db.prepare('SELECT b FROM t WHERE a = 3').pluck().get()); print(fs.readFileSync('${mark}', 'utf8')); ${HOLD}`,
    );
    apps.push(app);
    await node.restart();
    await until(
      () => app.stdout.split('\n').length > 2,
      20_000,
      () => `app printed ${app.stdout}`,
    );
    expect(app.stdout).toMatch(/^7\n- /);
    await until(
      () => !markOf('a.db').startsWith('-'),
      30_000,
      () => 'never checked',
    );
    await expectLogEqualsDatabase(node, 'a.db');
  });

  test('everything is killed, then somebody works on the files, checkpoint and all, and moves one away', async () => {
    node = await TestNode.start({role: 'primary'});
    await hold('a.db', 'WAL');
    await hold('gone.db', 'WAL');
    const gone = databaseId(node.data, 'gone.db') ?? '';
    await killAll();
    const db = new Database(node.backing('a.db'));
    db.exec('UPDATE t SET b = 5 WHERE a > 50');
    db.close();
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${node.backing('gone.db')}${suffix}`, {force: true});
    await node.restart();
    await expectLogEqualsDatabase(node, 'a.db');
    expect(readdirSync(join(node.data, 'lost')).map(name => name.slice(0, 32))).toEqual([gone]);
  });

  test('a database is sealed as closed only when its files are flushed', async () => {
    node = await TestNode.start({role: 'primary', env: {FERRITE_CRASH_AT: 'files:sync-wal'}});
    const app = await hold('a.db', 'WAL');
    app.process.kill('SIGKILL');
    await app.ended;
    await node.stop();
    expect(existsSync(join(node.data, 'databases', databaseId(node.data, 'a.db') ?? '', 'seal'))).toBe(false);
    expect(markOf('a.db')).not.toBe('');
  });

  test('a closed database whose WAL lost frames with the power is compared as a whole', async () => {
    node = await TestNode.start({role: 'primary'});
    const app = await hold('a.db', 'WAL');
    app.process.kill('SIGKILL');
    await app.ended;
    expect(await node.stop()).toBe(0);
    const wal = `${node.backing('a.db')}-wal`;
    const bytes = readFileSync(wal);
    bytes.fill(0, frameOffset(2, decodeWalHeader(bytes).pageSize), frameOffset(3, 4096));
    writeFileSync(wal, bytes);
    const sealPath = join(node.data, 'databases', databaseId(node.data, 'a.db') ?? '', 'seal');
    const seal = JSON.parse(readFileSync(sealPath, 'utf8')) as {mtimeNs: string}[];
    seal[1].mtimeNs = String(statSync(wal, {bigint: true}).mtimeNs);
    writeFileSync(sealPath, JSON.stringify(seal));
    await node.restart();
    await runSqlite(
      node.path('a.db'),
      `const db = new Database(path); db.pragma('user_version'); db.close();`,
    );
    await expectLogEqualsDatabase(node, 'a.db');
  });

  test('a record whose journal went before its daemon died stands, whatever becomes of the next transaction', async () => {
    // Each transaction writes the header of the dirty list three times, at last when it is over: this is the tenth.
    node = await TestNode.start({role: 'primary', env: {FERRITE_CRASH_AT: 'dirty:header#30'}});
    const app = sqliteApp(
      node.path('a.db'),
      `const db = new Database(path); db.pragma('cache_size = 5'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
      for (let n = 0; n < 9; n++) db.prepare('INSERT INTO t (b) VALUES (?)').run(n);
      db.exec('BEGIN'); for (let i = 0; i < 100; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(1000))').run();
      print('open'); while (!fs.existsSync('${node.directory}/go')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
      db.exec('COMMIT'); db.close();`,
    );
    apps.push(app);
    await until(
      () => app.stdout.includes('open'),
      60_000,
      () => node.log,
    );
    const before = await txidOf(node, 'a.db');
    expect(before).toBe(10);
    expect(node.log).toContain('died');
    const pid = node.daemonPid;
    await node.killDaemon();
    await until(
      () => node.daemonPid !== pid,
      20_000,
      () => node.log,
    );
    expect(await txidOf(node, 'a.db')).toBe(before);
    writeFileSync(join(node.directory, 'go'), '');
    await app.output();
    expect(await txidOf(node, 'a.db')).toBe(before + 1);
    await expectLogEqualsDatabase(node, 'a.db');
  });

  test('databases that the catalog has lost are taken in again at the start, in whatever folder', async () => {
    node = await TestNode.start({role: 'primary'});
    await runSqlite(
      node.path('a.db'),
      `const db = new Database(path); db.exec('CREATE TABLE t (a)'); db.close();`,
    );
    await runSqlite(
      node.path('b.db'),
      `fs.mkdirSync('${node.path('folder')}'); fs.writeFileSync('${node.path('folder/notes')}', 'no database');
      const db = new Database('${node.path('folder/b.db')}'); db.exec('CREATE TABLE t (a)'); db.close();`,
    );
    expect(await node.stop()).toBe(0);
    writeFileSync(join(node.data, 'catalog'), '');
    await node.restart();
    for (const name of ['a.db', 'folder/b.db']) {
      await until(
        () => existsSync(node.path(`${name}-pos`)),
        20_000,
        () => node.log,
      );
      await expectLogEqualsDatabase(node, name);
    }
    expect(existsSync(node.path('folder/notes-pos'))).toBe(false);
    expect(readdirSync(join(node.data, 'lost'))).toHaveLength(2);
  });
});
