import {existsSync, readdirSync, rmSync, statSync, truncateSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import Database from 'better-sqlite3';
import {afterEach, describe, expect, test} from 'vitest';
import {databaseId, expectLogEqualsDatabase, txidOf} from '../support/log-oracle.ts';
import {pretendReboot, TestNode, until} from '../support/node.ts';
import {App, runSqlite, sqliteApp} from './apps.ts';

const JOURNAL_MODES = ['DELETE', 'TRUNCATE', 'PERSIST', 'WAL', 'MEMORY'];

/** Commits rows of growing numbers and prints each when it is told of the commit; sizes vary, and some transactions are rolled back. */
const writer = (
  mode: string,
  seconds: number,
) => `const db = new Database(path, {timeout: 30000}); db.pragma('journal_mode = ${mode}'); db.pragma('cache_size = 20');
  db.exec('CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b)');
  const insert = db.prepare('INSERT INTO t (b) VALUES (randomblob(?))'); const end = Date.now() + ${seconds * 1000};
  for (let n = 0; Date.now() < end; n++) { db.exec('BEGIN'); let last;
    for (let i = 0; i < (n % 20 === 0 ? 200 : 3); i++) last = insert.run(100 + n * 37 % 2500).lastInsertRowid;
    if (n % 5 === 4) db.exec('ROLLBACK'); else { db.exec('COMMIT'); print(last); } } db.close();`;

describe('capture over crashes', () => {
  let node: TestNode;

  afterEach(async () => {
    await node?.destroy();
  });

  function lastPrinted(stdout: string): number {
    return Number(stdout.trimEnd().split('\n').at(-1));
  }

  async function rows(name: string): Promise<number> {
    return Number(
      await runSqlite(
        node.path(name),
        `const db = new Database(path); print(db.prepare('SELECT max(a) FROM t').pluck().get()); db.close();`,
      ),
    );
  }

  for (const mode of JOURNAL_MODES) {
    test(`${mode}: the daemon is killed again and again under load`, async () => {
      node = await TestNode.start({role: 'primary'});
      const app = sqliteApp(node.path('a.db'), writer(mode, 3));
      for (let kill = 0; kill < 3; kill++) {
        await sleep(300 + Math.random() * 500);
        const pid = node.daemonPid;
        await node.killDaemon();
        await until(
          () => node.daemonPid !== pid,
          60_000,
          () => node.log,
        );
      }
      const printed = lastPrinted(await app.output());
      await expectLogEqualsDatabase(node, 'a.db');
      expect(await rows('a.db')).toBe(printed);
      expect(node.log).not.toMatch(/level=error/);
    });

    test(`${mode}: everything is killed, then started again`, async () => {
      node = await TestNode.start({role: 'primary'});
      for (let round = 0; round < (mode === 'WAL' ? 2 : 1); round++) {
        const app = sqliteApp(node.path('a.db'), writer(mode, 20));
        await until(
          () => app.stdout.length > 0,
          60_000,
          () => 'nothing written',
        );
        await sleep(300 + Math.random() * 500);
        await node.killAll();
        await new App('umount', ['-l', node.mount]).ended;
        const {stdout} = await app.ended;
        await node.restart();
        // A hot journal is rolled back by the next reader.
        const count = await rows('a.db').catch(() => 0);
        if (mode !== 'MEMORY') expect(count).toBeGreaterThanOrEqual(lastPrinted(stdout));
        if (mode !== 'MEMORY' || count > 0) await expectLogEqualsDatabase(node, 'a.db');
        if (mode === 'MEMORY') break; // SQLite's own risk: the file may be torn.
      }
    });
  }

  // The daemon that the keeper starts crashes at the same step, after as many calls again.
  const steps: readonly [string, readonly string[]][] = [
    ['log:record-write#40', ['DELETE', 'WAL']],
    ['log:index-write#40', ['PERSIST', 'WAL']],
    ['dirty:append#60', ['DELETE']],
    ['dirty:header#60', ['DELETE', 'PERSIST']],
    ['log:base-write#2', ['WAL']],
    ['catalog:append#2', ['DELETE', 'WAL']],
  ];
  for (const [step, modes] of steps) {
    for (const mode of modes) {
      test(`${mode}: the daemon crashes at ${step}`, async () => {
        node = await TestNode.start({role: 'primary', env: {FERRITE_CRASH_AT: step}});
        for (const name of ['a.db', 'b.db', 'c.db']) {
          const script = `const db = new Database(path, {timeout: 30000}); db.pragma('journal_mode = ${mode}'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
            const insert = db.prepare('INSERT INTO t (b) VALUES (randomblob(?))'); for (let n = 0; n < 30; n++) insert.run(n * 100); db.close();`;
          await runSqlite(node.path(name), script);
          const {position} = await expectLogEqualsDatabase(node, name);
          expect(await rows(name)).toBe(30);
          expect(Number(position.txid)).toBe(mode === 'WAL' ? 32 : 31);
        }
      });
    }
  }

  test('files that were changed while nothing ran', async () => {
    node = await TestNode.start({role: 'primary'});
    for (const mode of ['DELETE', 'WAL']) await runSqlite(node.path(`${mode}.db`), writer(mode, 0.3));
    expect(await node.stop()).toBe(0);
    for (const mode of ['DELETE', 'WAL']) {
      const db = new Database(node.backing(`${mode}.db`));
      db.exec('INSERT INTO t (b) VALUES (randomblob(9999))');
      db.close();
    }
    const fresh = new Database(node.backing('fresh.db'));
    fresh.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b); INSERT INTO t (b) VALUES (1)');
    fresh.close();
    await node.restart();
    for (const mode of ['DELETE', 'WAL']) {
      const before = await txidOf(node, `${mode}.db`);
      await rows(`${mode}.db`);
      await expectLogEqualsDatabase(node, `${mode}.db`);
      expect(await txidOf(node, `${mode}.db`)).toBeGreaterThanOrEqual(before);
    }
    await rows('fresh.db');
    await expectLogEqualsDatabase(node, 'fresh.db');
  });

  test('the page checksums are lost', async () => {
    node = await TestNode.start({role: 'primary'});
    for (const mode of ['DELETE', 'WAL']) await runSqlite(node.path(`${mode}.db`), writer(mode, 0.3));
    await node.stop();
    for (const mode of ['DELETE', 'WAL'])
      rmSync(join(node.data, 'databases', databaseId(node.data, `${mode}.db`) ?? '', 'checksums'));
    await node.restart();
    for (const mode of ['DELETE', 'WAL']) {
      const before = await txidOf(node, `${mode}.db`);
      await expectLogEqualsDatabase(node, `${mode}.db`);
      expect(await txidOf(node, `${mode}.db`)).toBe(before);
      await runSqlite(
        node.path(`${mode}.db`),
        `const db = new Database(path); db.exec('INSERT INTO t (b) VALUES (5)'); db.close();`,
      );
      await expectLogEqualsDatabase(node, `${mode}.db`);
    }
  });

  for (const mode of ['DELETE', 'WAL']) {
    test(`${mode}: power loss takes what was not flushed of the log, of the WAL`, async () => {
      node = await TestNode.start({role: 'primary'});
      const app = sqliteApp(node.path('a.db'), writer(mode, 20));
      await until(
        () => app.stdout.split('\n').length > 50,
        60_000,
        () => 'nothing written',
      );
      await node.killAll();
      await new App('umount', ['-l', node.mount]).ended;
      await app.ended;
      pretendReboot(node);
      const log = join(node.data, 'databases', databaseId(node.data, 'a.db') ?? '', 'log');
      const segment = readdirSync(log).filter(name => statSync(join(log, name)).size > 20_000)[0];
      if (segment !== undefined) truncateSync(join(log, segment), statSync(join(log, segment)).size - 9_000);
      const wal = node.backing('a.db-wal');
      if (existsSync(wal) && statSync(wal).size > 12_000) truncateSync(wal, statSync(wal).size - 10_000);
      await node.restart();
      await rows('a.db');
      await expectLogEqualsDatabase(node, 'a.db');
    });
  }
});
