import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, test} from 'vitest';
import {expectLogEqualsDatabase, txidOf} from '../support/log-oracle.ts';
import {TestNode} from '../support/node.ts';
import {runCommand, runPython, runShell, runSqlite, sqliteApp} from './apps.ts';

const JOURNAL_MODES = ['DELETE', 'TRUNCATE', 'PERSIST', 'MEMORY', 'OFF', 'WAL'];
/** Each size once in a journal's mode or the WAL, the extremes in both. */
const PAGE_SIZES: Readonly<Record<string, readonly number[]>> = {
  DELETE: [512, 8192, 65_536],
  PERSIST: [1024],
  TRUNCATE: [32_768],
  MEMORY: [65_536],
  OFF: [512],
  WAL: [512, 1024, 4096, 65_536],
};

describe('capture of what SQLite does on a mount', () => {
  let node: TestNode;
  let count = 0;
  const fresh = (what: string) => `${what}-${++count}.db`;

  beforeAll(async () => {
    node = await TestNode.start({role: 'primary'});
  });
  afterAll(async () => {
    await node?.destroy();
  });

  /** Runs the app and returns the number of transactions that the log has more afterwards. */
  async function transactions(name: string, script: string): Promise<number> {
    const before = await txidOf(node, name);
    await runSqlite(node.path(name), script);
    const {position} = await expectLogEqualsDatabase(node, name);
    return Number(position.txid) - before;
  }

  for (const mode of JOURNAL_MODES) {
    for (const pageSize of PAGE_SIZES[mode] ?? [4096]) {
      test(`${mode}, pages of ${pageSize}: one TXID for each commit, none for a rollback`, async () => {
        const name = fresh(mode);
        await transactions(
          name,
          `const db = new Database(path); db.pragma('page_size = ${pageSize}');
          db.pragma('journal_mode = ${mode}'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.close();`,
        );
        const made = await transactions(
          name,
          `const db = new Database(path); db.pragma('journal_mode = ${mode}');
          for (let i = 0; i < 30; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(?))').run(i * 100); db.close();`,
        );
        expect(made).toBe(30);
        if (mode === 'OFF') return;
        const rolledBack = await transactions(
          name,
          `const db = new Database(path); db.pragma('journal_mode = ${mode}');
          db.exec('BEGIN'); db.exec('INSERT INTO t (b) VALUES (1)'); db.exec('ROLLBACK'); db.close();`,
        );
        expect(rolledBack).toBe(0);
      });
    }

    test(`${mode}: a transaction that spills the cache`, async () => {
      const name = fresh(`spill-${mode}`);
      const open = `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.pragma('cache_size = 10'); db.pragma('cache_spill = 10');`;
      await transactions(name, `${open} db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.close();`);
      const made = await transactions(
        name,
        `${open} db.exec('BEGIN'); const insert = db.prepare('INSERT INTO t (b) VALUES (zeroblob(?))');
        for (let i = 0; i < 500; i++) insert.run(2000); db.exec('UPDATE t SET b = randomblob(1000)'); db.exec('COMMIT'); db.close();`,
      );
      expect(made).toBe(1);
      const savepoints = await transactions(
        name,
        `${open} db.exec('BEGIN'); db.exec('SAVEPOINT one'); db.exec('UPDATE t SET b = randomblob(1500)');
        ${mode === 'OFF' ? '' : "db.exec('ROLLBACK TO one');"} db.exec('INSERT INTO t (b) VALUES (5)'); db.exec('COMMIT'); db.close();`,
      );
      expect(savepoints).toBe(1);
      if (mode === 'OFF') return;
      const none = await transactions(
        name,
        `${open} db.exec('BEGIN'); db.exec('UPDATE t SET b = randomblob(1200)'); db.exec('ROLLBACK'); db.close();`,
      );
      expect(none).toBe(0);
    });

    for (const autoVacuum of ['FULL', 'INCREMENTAL']) {
      test(`${mode}: auto_vacuum ${autoVacuum}`, async () => {
        const name = fresh(`vacuum-${mode}`);
        const open = `const db = new Database(path); db.pragma('journal_mode = ${mode}');`;
        await transactions(
          name,
          `const db = new Database(path); db.pragma('auto_vacuum = ${autoVacuum}'); db.pragma('journal_mode = ${mode}'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.close();`,
        );
        await transactions(
          name,
          `${open} db.exec('BEGIN'); for (let i = 0; i < 300; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(3000))').run(); db.exec('COMMIT'); db.close();`,
        );
        const deleted = await transactions(
          name,
          `${open} db.exec('DELETE FROM t WHERE a % 3 != 0'); db.close();`,
        );
        expect(deleted).toBe(1);
        if (autoVacuum === 'INCREMENTAL')
          expect(await transactions(name, `${open} db.pragma('incremental_vacuum(50)'); db.close();`)).toBe(
            1,
          );
      });
    }

    test(`${mode}: VACUUM that shrinks, that grows, that changes the page size`, async () => {
      const name = fresh(`vacuum-${mode}`);
      const open = `const db = new Database(path); db.pragma('journal_mode = ${mode}');`;
      await transactions(
        name,
        `${open} db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.exec('BEGIN');
        for (let i = 0; i < 300; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(3000))').run(); db.exec('COMMIT'); db.exec('DELETE FROM t WHERE a > 20'); db.close();`,
      );
      expect(await transactions(name, `${open} db.exec('VACUUM'); db.close();`)).toBe(1);
      await transactions(
        name,
        `${open} db.exec('CREATE INDEX i ON t (b)'); db.exec('UPDATE t SET b = randomblob(3900)'); db.close();`,
      );
      expect(await transactions(name, `${open} db.exec('VACUUM'); db.close();`)).toBe(1);
      if (mode === 'WAL')
        await transactions(
          name,
          `const db = new Database(path); db.pragma('journal_mode = DELETE'); db.close();`,
        );
      for (const pageSize of [1024, 16_384, 4096]) {
        await transactions(
          name,
          `const db = new Database(path); db.pragma('page_size = ${pageSize}'); db.exec('VACUUM'); db.close();`,
        );
      }
      const {pageSize} = await expectLogEqualsDatabase(node, name);
      expect(pageSize).toBe(4096);
    });

    for (const synchronous of ['OFF', mode === 'WAL' ? 'NORMAL' : 'EXTRA']) {
      test(`${mode}, synchronous ${synchronous}`, async () => {
        const name = fresh(`sync-${mode}`);
        await transactions(
          name,
          `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.pragma('synchronous = ${synchronous}');
          db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
          for (let i = 0; i < 20; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(500))').run(); db.close();`,
        );
      });
    }

    test(`${mode}, locking_mode EXCLUSIVE`, async () => {
      const name = fresh(`exclusive-${mode}`);
      for (const order of ['before', 'after']) {
        const lock = `db.pragma('locking_mode = EXCLUSIVE');`;
        await transactions(
          name,
          `const db = new Database(path); ${order === 'before' ? lock : ''} db.pragma('journal_mode = ${mode}'); ${order === 'after' ? lock : ''}
          db.exec('CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b)');
          for (let i = 0; i < 20; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(500))').run();
          db.pragma('locking_mode = NORMAL'); db.exec('INSERT INTO t (b) VALUES (1)'); db.close();`,
        );
      }
    });
  }

  test('EXCLUSIVE without -shm is captured while it goes on', async () => {
    for (const mode of ['WAL', 'DELETE']) {
      const name = fresh('exclusive');
      const app = sqliteApp(
        node.path(name),
        `const db = new Database(path); db.pragma('locking_mode = EXCLUSIVE'); db.pragma('journal_mode = ${mode}');
        db.exec('CREATE TABLE t (a)'); for (let i = 0; i < 10; i++) { db.exec('INSERT INTO t VALUES (randomblob(3000))'); }
        db.exec('BEGIN'); db.exec('INSERT INTO t VALUES (1)'); db.exec('ROLLBACK'); print('done'); setTimeout(() => {}, 3000);`,
      );
      const {position} = await expectWhenDone(app, name);
      expect(Number(position.txid)).toBe(mode === 'WAL' ? 12 : 11);
      await app.output();
    }
  });

  async function expectWhenDone(app: ReturnType<typeof sqliteApp>, name: string) {
    for (let left = 500; left > 0 && !app.stdout.includes('done'); left--)
      await new Promise(resolve => setTimeout(resolve, 10));
    return await expectLogEqualsDatabase(node, name);
  }

  test('switching between WAL and DELETE, back and forth', async () => {
    const name = fresh('switch');
    const made = await transactions(
      name,
      `const db = new Database(path); db.exec('CREATE TABLE t (a)'); let n = 1;
      for (const mode of ['WAL', 'DELETE', 'WAL', 'TRUNCATE', 'WAL', 'PERSIST', 'WAL', 'MEMORY']) {
        db.pragma('journal_mode = ' + mode); db.exec('INSERT INTO t VALUES (randomblob(9000))'); db.exec('INSERT INTO t VALUES (1)');
      } db.close();`,
    );
    expect(made).toBe(1 + 8 + 16);
  });

  test('a transaction over two attached databases', async () => {
    for (const mode of ['DELETE', 'TRUNCATE', 'PERSIST', 'WAL']) {
      const [one, two] = [fresh('one'), fresh('two')];
      await runSqlite(
        node.path(one),
        `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.exec("ATTACH '${node.path(two)}' AS two");
        db.pragma('two.journal_mode = ${mode}'); db.exec('CREATE TABLE main.t (a)'); db.exec('CREATE TABLE two.u (a)');
        for (let i = 0; i < 5; i++) { db.exec('BEGIN'); db.exec('INSERT INTO t VALUES (randomblob(5000))'); db.exec('INSERT INTO u VALUES (randomblob(9000))'); db.exec(i % 2 ? 'ROLLBACK' : 'COMMIT'); } db.close();`,
      );
      for (const name of [one, two]) {
        const {position} = await expectLogEqualsDatabase(node, name);
        expect(Number(position.txid)).toBe(mode === 'WAL' ? 5 : 4);
      }
    }
  });

  test('hot journal recovery: the writer was killed', async () => {
    for (const mode of ['DELETE', 'TRUNCATE', 'PERSIST']) {
      const name = fresh('hot');
      await transactions(
        name,
        `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
        db.exec('BEGIN'); for (let i = 0; i < 200; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(2000))').run(); db.exec('COMMIT'); db.close();`,
      );
      const before = await txidOf(node, name);
      await sqliteApp(
        node.path(name),
        `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.pragma('cache_size = 5');
        db.exec('BEGIN'); db.exec('UPDATE t SET b = randomblob(2100)'); process.kill(process.pid, 'SIGKILL');`,
      ).ended;
      expect(await txidOf(node, name)).toBe(before);
      expect(
        await transactions(
          name,
          `const db = new Database(path); print(db.prepare('SELECT count(*) FROM t').get()); db.close();`,
        ),
      ).toBe(0);
      expect(
        await transactions(
          name,
          `const db = new Database(path); db.exec('INSERT INTO t (b) VALUES (1)'); db.close();`,
        ),
      ).toBe(1);
    }
  });

  test('journal_mode PERSIST with journal_size_limit', async () => {
    for (const limit of [0, 1000, 100_000]) {
      const name = fresh('limit');
      await transactions(
        name,
        `const db = new Database(path); db.pragma('journal_mode = PERSIST'); db.pragma('journal_size_limit = ${limit}'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.close();`,
      );
      expect(
        await transactions(
          name,
          `const db = new Database(path); db.pragma('journal_mode = PERSIST'); db.pragma('journal_size_limit = ${limit}');
        for (let i = 0; i < 10; i++) { db.exec('BEGIN'); for (let j = 0; j < 20; j++) db.prepare('INSERT INTO t (b) VALUES (randomblob(3000))').run(); db.exec('COMMIT'); db.exec('BEGIN'); db.exec('DELETE FROM t'); db.exec('ROLLBACK'); } db.close();`,
        ),
      ).toBe(10);
    }
  });

  test('WAL with checkpoints of every kind, restarts and a size limit', async () => {
    const name = fresh('checkpoint');
    const made = await transactions(
      name,
      `const db = new Database(path); db.pragma('journal_mode = WAL'); db.pragma('wal_autocheckpoint = 20'); db.pragma('journal_size_limit = 50000');
      db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); for (let i = 0; i < 400; i++) { db.prepare('INSERT INTO t (b) VALUES (randomblob(3000))').run();
      if (i % 37 === 0) db.pragma('wal_checkpoint(' + ['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'][i % 4] + ')'); } db.close();`,
    );
    expect(made).toBe(402);
  });

  test('a large WAL transaction, checkpointed and restarted at once', async () => {
    const name = fresh('large');
    const made = await transactions(
      name,
      `const db = new Database(path); db.pragma('journal_mode = WAL'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
      db.exec('BEGIN'); const insert = db.prepare('INSERT INTO t (b) VALUES (randomblob(3500))'); for (let i = 0; i < 5000; i++) insert.run(); db.exec('COMMIT');
      db.pragma('wal_checkpoint(TRUNCATE)'); db.exec('UPDATE t SET b = a WHERE a < 4'); db.pragma('wal_checkpoint(RESTART)'); db.exec('DELETE FROM t WHERE a > 100'); db.close();`,
    );
    expect(made).toBe(5);
  });

  test('deleting, renaming and re-creating', async () => {
    const name = fresh('renamed');
    await transactions(name, `const db = new Database(path); db.exec('CREATE TABLE t (a)'); db.close();`);
    const first = await expectLogEqualsDatabase(node, name);
    const other = fresh('moved');
    await runCommand('mv', node.path(name), node.path(other));
    const moved = await expectLogEqualsDatabase(node, other);
    expect([moved.id, moved.position]).toEqual([first.id, first.position]);
    await runCommand('rm', node.path(other));
    expect(await txidOf(node, other)).toBe(0);
    await transactions(other, `const db = new Database(path); db.exec('CREATE TABLE u (a)'); db.close();`);
    const again = await expectLogEqualsDatabase(node, other);
    expect(again.id).not.toBe(first.id);
    expect(existsSync(join(node.data, 'databases', first.id))).toBe(false);
    await transactions(
      name,
      `const db = new Database(path); db.pragma('journal_mode = WAL'); db.exec('CREATE TABLE v (a)'); db.close();`,
    );
    await runCommand('mv', node.path(name), node.path(other));
    const replaced = await expectLogEqualsDatabase(node, other);
    expect(replaced.id).not.toBe(again.id);
    await runCommand('mkdir', node.path('folder'));
    await runCommand('mv', node.path(other), node.path('folder/inner.db'));
    await runCommand('mv', node.path('folder'), node.path('renamed-folder'));
    const inner = await expectLogEqualsDatabase(node, 'renamed-folder/inner.db');
    expect(inner.id).toBe(replaced.id);
    expect(
      await transactions(
        'renamed-folder/inner.db',
        `const db = new Database(path); db.exec('INSERT INTO v VALUES (1)'); db.close();`,
      ),
    ).toBe(1);
  });

  test('cp, .backup and VACUUM INTO the mount', async () => {
    const source = fresh('source');
    await transactions(
      source,
      `const db = new Database(path); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.exec('BEGIN');
      for (let i = 0; i < 2000; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(3000))').run(); db.exec('COMMIT'); db.close();`,
    );
    const [copied, backup, into] = [fresh('copied'), fresh('backup'), fresh('into')];
    await runCommand('cp', node.path(source), node.path(copied));
    expect((await expectLogEqualsDatabase(node, copied)).position.txid).toBe(1n);
    await runShell(node.path(source), `.backup ${node.path(backup)}`);
    await expectLogEqualsDatabase(node, backup);
    await runShell(node.path(source), `VACUUM INTO '${node.path(into)}';`);
    await expectLogEqualsDatabase(node, into);
    await runCommand('cp', node.path(into), node.path(copied));
    await expectLogEqualsDatabase(node, copied);
    await runShell(
      node.path(backup),
      `PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=WAL; DELETE FROM t WHERE a > 10; VACUUM;`,
    );
    await expectLogEqualsDatabase(node, backup);
    await runShell(node.path(source), `.backup ${node.path(backup)}`).catch(() => undefined);
    await expectLogEqualsDatabase(node, backup);
  });

  test("Python's sqlite3, with its own transactions", async () => {
    const name = fresh('python');
    await runPython(
      node.path(name),
      `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('create table t (a)')
for i in range(20):
    db.execute('insert into t values (?)', (i,))
    db.commit()
db.execute('insert into t values (1)')
db.rollback()
db.close()`,
    );
    expect((await expectLogEqualsDatabase(node, name)).position.txid).toBe(21n);
  });

  test('pages that were allocated and never written', async () => {
    for (const mode of ['DELETE', 'WAL', 'MEMORY']) {
      const name = fresh('unwritten');
      await transactions(
        name,
        `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
        db.exec('BEGIN'); db.exec('INSERT INTO t (b) VALUES (zeroblob(900000))'); db.exec('DELETE FROM t'); db.exec('COMMIT');
        db.exec('INSERT INTO t (b) VALUES (zeroblob(90000))'); db.close();`,
      );
    }
  });
});
