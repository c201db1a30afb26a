import {readFileSync, statSync, writeFileSync} from 'node:fs';
import {open} from 'node:fs/promises';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, test} from 'vitest';
import {expectLogEqualsDatabase, txidOf} from '../support/log-oracle.ts';
import {TestNode, until} from '../support/node.ts';
import {type App, runCommand, runSqlite, sqliteApp} from './apps.ts';

const WAIT_MS = 20_000;

describe('capture where the database file is written by others than the transaction that is seen', () => {
  let node: TestNode;
  let count = 0;
  const fresh = () => `${++count}.db`;

  beforeAll(async () => {
    node = await TestNode.start({role: 'primary'});
  });
  afterAll(async () => {
    await node?.destroy();
  });

  async function printed(app: App, text: string): Promise<void> {
    await until(
      () => app.stdout.includes(text),
      WAIT_MS,
      () => `app printed ${app.stdout}`,
    );
  }

  const WAIT = `const wait = flag => { while (!fs.existsSync(flag)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20); };`;
  const ROWS = `for (let i = 0; i < 100; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(9000))').run();`;
  const MADE = `db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.exec('BEGIN'); ${ROWS} db.exec('COMMIT');`;

  /** Makes a database, and outside of the mount a later version of it with other rows. Returns that one's path. */
  async function makeBackup(name: string, mode: string): Promise<string> {
    const backup = join(node.directory, `backup-${name}`);
    await runSqlite(
      node.path(name),
      `const db = new Database(path); db.pragma('journal_mode = ${mode}'); ${MADE} db.close();`,
    );
    await expectLogEqualsDatabase(node, name);
    await runCommand('cp', node.path(name), backup);
    await runSqlite(
      backup,
      `const db = new Database(path); db.exec('UPDATE t SET b = randomblob(9000)'); db.exec('BEGIN'); ${ROWS} db.exec('COMMIT'); db.close();`,
    );
    return backup;
  }

  for (const mode of ['OFF', 'MEMORY']) {
    test(`${mode} and never flushed, then WAL at once: the first transaction in the WAL brings the rest along`, async () => {
      const [name, flag] = [fresh(), join(node.directory, `${mode}-go`)];
      await runSqlite(node.path(name), `const db = new Database(path); ${MADE} db.close();`);
      const app = sqliteApp(
        node.path(name),
        `${WAIT} const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.pragma('synchronous = OFF'); db.exec('BEGIN'); ${ROWS} db.exec('COMMIT');
        db.pragma('journal_mode = WAL'); db.exec('UPDATE t SET b = 1 WHERE a = 1'); print('ready'); wait(${JSON.stringify(flag)}); db.close();`,
      );
      await printed(app, 'ready');
      await expectLogEqualsDatabase(node, name);
      writeFileSync(flag, '');
      await app.output();
      await expectLogEqualsDatabase(node, name);
    });
  }

  for (const order of ['the file first', 'the file first, and the daemon dies', 'the WAL first']) {
    test(`a backup is copied over a database that a killed app left with a WAL: ${order}`, async () => {
      const name = fresh();
      const backup = await makeBackup(name, 'WAL');
      await runSqlite(
        node.path(name),
        `const db = new Database(path); db.exec('UPDATE t SET b = randomblob(3000) WHERE a % 9 = 0'); process.kill(process.pid, 'SIGKILL');`,
      ).catch(() => undefined);
      if (order === 'the WAL first') await runCommand('rm', node.path(`${name}-wal`));
      await runCommand('cp', backup, node.path(name));
      if (order === 'the file first, and the daemon dies') await node.killDaemon();
      if (order !== 'the WAL first') await runCommand('rm', node.path(`${name}-wal`));
      await expectLogEqualsDatabase(node, name);
      expect(readFileSync(node.backing(name)).equals(readFileSync(backup))).toBe(true);
    });
  }

  test('what is written to the file under a WAL in use is captured, also if nothing else is written', async () => {
    const name = fresh();
    await makeBackup(name, 'WAL');
    const flag = join(node.directory, 'copied');
    const app = sqliteApp(
      node.path(name),
      `${WAIT} const db = new Database(path); db.exec('UPDATE t SET b = 1 WHERE a = 1'); print('ready'); wait(${JSON.stringify(flag)}); process.kill(process.pid, 'SIGKILL');`,
    );
    await printed(app, 'ready');
    const before = await txidOf(node, name);
    const file = await open(node.path(name), 'r+');
    await file.write(Buffer.alloc(100, 7), 0, 100, statSync(node.path(name)).size - 100); // In the middle of a blob.
    await file.close();
    await until(
      async () => (await txidOf(node, name)) > before,
      WAIT_MS,
      () => 'not captured',
    );
    await expectLogEqualsDatabase(node, name);
    writeFileSync(flag, '');
    await app.ended;
  });

  for (const kill of ['', ', and the daemon is killed']) {
    test(`an app dies before its journal is flushed${kill}: SQLite ignores the journal, and so do we`, async () => {
      const name = fresh();
      const backup = await makeBackup(name, 'DELETE');
      const inWal = await makeBackup(fresh(), 'WAL');
      await runSqlite(
        node.path(name),
        `const db = new Database(path); db.exec('BEGIN'); db.exec('UPDATE t SET b = 1 WHERE a < 5'); process.kill(process.pid, 'SIGKILL');`,
      ).catch(() => undefined);
      expect(readFileSync(node.backing(`${name}-journal`))[0]).toBe(0);
      if (kill !== '') await node.killDaemon();
      await runCommand('cp', backup, node.path(name));
      await expectLogEqualsDatabase(node, name);
      await runSqlite(
        node.path(name),
        `const db = new Database(path); db.pragma('journal_mode = MEMORY'); db.pragma('synchronous = OFF'); db.exec('UPDATE t SET b = 1'); db.close();`,
      );
      await expectLogEqualsDatabase(node, name);
      await runCommand('cp', inWal, node.path(name));
      await expectLogEqualsDatabase(node, name);
      await runSqlite(
        node.path(name),
        `const db = new Database(path); db.exec('UPDATE t SET b = 2 WHERE a < 50'); db.pragma('wal_checkpoint(PASSIVE)'); db.exec('UPDATE t SET b = 3 WHERE a < 9'); db.close();`,
      );
      await expectLogEqualsDatabase(node, name);
      expect(readFileSync(node.backing(`${name}-journal`)).length).toBeGreaterThan(0);
    });
  }

  test('a checkpoint is nobody else: it makes no transaction', async () => {
    const name = fresh();
    await runSqlite(
      node.path(name),
      `const db = new Database(path); db.pragma('journal_mode = WAL'); db.pragma('wal_autocheckpoint = 0'); ${MADE}
      db.exec('DELETE FROM t WHERE a > 50'); db.exec('VACUUM'); db.pragma('wal_checkpoint(PASSIVE)'); db.exec('INSERT INTO t (b) VALUES (1)'); db.pragma('wal_checkpoint(TRUNCATE)'); db.close();`,
    );
    const {position} = await expectLogEqualsDatabase(node, name);
    expect(position.txid).toBe(6n);
  });
});
