import {existsSync, readFileSync, rmSync, statfsSync, writeFileSync} from 'node:fs';
import {open} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, describe, expect, test} from 'vitest';
import {
  decodeWalFrameHeader,
  decodeWalHeader,
  encodeWalFrame,
  encodeWalHeader,
  frameOffset,
  WAL_FRAME_HEADER_SIZE,
  WAL_HEADER_SIZE,
} from '../../src/sqlite/wal.ts';
import {expectLogEqualsDatabase, readLogImage, txidOf} from '../support/log-oracle.ts';
import {TestNode, until} from '../support/node.ts';
import {type App, runCommand, runPython, runSqlite, sqliteApp} from './apps.ts';

describe('capture where it is not plain', () => {
  let node: TestNode;

  afterEach(async () => {
    await node?.destroy();
  });

  /** In an app: waits until the test says so. */
  const wait = (flag: string) =>
    `while (!fs.existsSync(${JSON.stringify(flag)})) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);`;

  async function printed(app: App, text: string): Promise<void> {
    await until(
      () => app.stdout.includes(text),
      20_000,
      () => `app printed ${app.stdout}`,
    );
  }

  /** Frames of the WAL's generation; the file is longer. */
  function frameCount(wal: Buffer, pageSize: number): number {
    const {salt1} = decodeWalHeader(wal);
    let count = 0;
    while (
      frameOffset(count + 1, pageSize) <= wal.length &&
      wal.readUInt32BE(frameOffset(count, pageSize) + 8) === salt1
    )
      count++;
    return count;
  }

  /** Appends frames to the WAL as a writer does that dies before it publishes them in the wal-index. */
  async function appendFrames(
    name: string,
    count: number,
    pgnos: readonly number[],
    commit: number,
  ): Promise<void> {
    const wal = readFileSync(node.backing(`${name}-wal`));
    const header = decodeWalHeader(wal);
    const last = decodeWalFrameHeader(wal, frameOffset(count - 1, header.pageSize));
    const running = Uint32Array.of(last.checksum1, last.checksum2);
    const file = await open(node.path(`${name}-wal`), 'r+');
    for (const [index, pgno] of pgnos.entries()) {
      const bytes = new Uint8Array(WAL_FRAME_HEADER_SIZE + header.pageSize);
      const page = new Uint8Array(header.pageSize).fill(0xa0 + index);
      const isLast = index === pgnos.length - 1;
      encodeWalFrame(
        bytes,
        0,
        {pgno, commit: isLast ? commit : 0, salt1: header.salt1, salt2: header.salt2, page},
        running,
        header.bigEndCksum,
      );
      await file.write(bytes, 0, bytes.length, frameOffset(count + index, header.pageSize));
    }
    await file.close();
  }

  for (const kill of ['nobody', 'the daemon', 'the daemon, in the middle of the next transaction']) {
    test(`a writer dies before it publishes its frames, then ${kill}: the next transaction takes them back`, async () => {
      node = await TestNode.start({role: 'primary'});
      const flag = join(node.directory, 'go');
      const app = sqliteApp(
        node.path('a.db'),
        `const db = new Database(path); db.pragma('journal_mode = WAL'); db.pragma('wal_autocheckpoint = 0'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
        for (let i = 0; i < 10; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(3000))').run(); print('ready'); ${wait(flag)}
        db.prepare('UPDATE t SET b = 1 WHERE a = 1').run(); print('again'); ${wait(`${flag}2`)} print(db.pragma('integrity_check')[0].integrity_check); db.close();`,
      );
      await printed(app, 'ready');
      const {pageCount, pageSize} = await expectLogEqualsDatabase(node, 'a.db');
      const before = await txidOf(node, 'a.db');
      const frames = frameCount(readFileSync(node.backing('a.db-wal')), pageSize);
      await appendFrames('a.db', frames, [3, 4, pageCount + 1], pageCount + 1);
      await until(
        async () => (await txidOf(node, 'a.db')) === before + 1,
        60_000,
        () => 'not captured',
      );
      if (kill === 'the daemon, in the middle of the next transaction')
        await appendFrames('a.db', frames, [5], 0);
      if (kill !== 'nobody') {
        const pid = node.daemonPid;
        await node.killDaemon();
        await until(
          () => node.daemonPid !== pid,
          60_000,
          () => node.log,
        );
      }
      writeFileSync(flag, '');
      await printed(app, 'again');
      await until(
        async () => (await txidOf(node, 'a.db')) > before + 1,
        60_000,
        () => 'not captured',
      );
      writeFileSync(`${flag}2`, '');
      expect((await app.output()).trim().endsWith('ok')).toBe(true);
      const {entries} = await expectLogEqualsDatabase(node, 'a.db');
      // Where the page checksums were lost with the daemon, the pages are taken back at once, by a record of their own.
      expect(entries.length - before).toBeGreaterThanOrEqual(2);
      expect(entries.length - before).toBeLessThanOrEqual(kill === 'nobody' ? 2 : 3);
    });
  }

  /** Writes a header with other salts to the WAL, as a connection does that takes it for empty. */
  async function beginWalAnew(name: string): Promise<void> {
    const {salt1, salt2, ...header} = decodeWalHeader(readFileSync(node.backing(`${name}-wal`)));
    const bytes = new Uint8Array(WAL_HEADER_SIZE);
    encodeWalHeader(bytes, 0, {...header, salt1: salt1 + 1, salt2: salt2 ^ 0x5555}, new Uint32Array(2));
    const file = await open(node.path(`${name}-wal`), 'r+');
    await file.write(bytes, 0, bytes.length, 0);
    await file.close();
  }

  for (const next of ['commits', 'dies too', 'dies too, as does the daemon']) {
    test(`a writer dies before it publishes its frames, the WAL is begun anew by one that ${next}: they never were`, async () => {
      node = await TestNode.start({role: 'primary'});
      const flag = join(node.directory, 'go');
      const app = sqliteApp(
        node.path('a.db'),
        `const db = new Database(path); db.pragma('journal_mode = WAL'); db.pragma('wal_autocheckpoint = 0'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
        for (let i = 0; i < 10; i++) db.prepare('INSERT INTO t (b) VALUES (randomblob(3000))').run(); db.pragma('wal_checkpoint(PASSIVE)'); print('ready'); ${wait(flag)}
        db.prepare('INSERT INTO t (b) VALUES (1)').run(); print('again'); ${wait(`${flag}2`)} print(db.pragma('integrity_check')[0].integrity_check); process.kill(process.pid, 'SIGKILL');`,
      );
      await printed(app, 'ready');
      const {pageCount, pageSize, position} = await expectLogEqualsDatabase(node, 'a.db');
      const before = Number(position.txid);
      const frames = frameCount(readFileSync(node.backing('a.db-wal')), pageSize);
      await appendFrames('a.db', frames, [3, 4, pageCount + 1], pageCount + 1);
      await until(
        async () => (await txidOf(node, 'a.db')) === before + 1,
        60_000,
        () => 'not captured',
      );
      if (next !== 'commits') await beginWalAnew('a.db');
      if (next === 'dies too, as does the daemon') await node.killDaemon();
      if (next === 'commits') {
        writeFileSync(flag, '');
        await printed(app, 'again');
      }
      await until(
        async () => (await txidOf(node, 'a.db')) === before + 2,
        60_000,
        () => `not taken back: ${node.log}`,
      );
      const {entries} = await expectLogEqualsDatabase(node, 'a.db');
      expect(entries.length).toBe(before + 2);
      for (const name of [flag, `${flag}2`]) writeFileSync(name, '');
      const {stdout} = await app.ended;
      if (next === 'commits') expect(stdout.trim().endsWith('ok')).toBe(true);
    });
  }

  for (const mode of ['MEMORY', 'OFF']) {
    test(`${mode} with synchronous OFF: captured when it is quiet, never in the middle`, async () => {
      node = await TestNode.start({role: 'primary'});
      const flag = join(node.directory, 'go');
      const app = sqliteApp(
        node.path('a.db'),
        `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.pragma('synchronous = OFF'); db.pragma('cache_size = 5');
        db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.exec('INSERT INTO t (b) VALUES (randomblob(5000))'); print('one'); ${wait(`${flag}1`)}
        db.exec('BEGIN'); for (let i = 0; i < 100; i++) db.exec('INSERT INTO t (b) VALUES (randomblob(3000))'); db.exec('UPDATE t SET b = randomblob(2000)'); print('two'); ${wait(`${flag}2`)}
        db.exec('COMMIT'); print('three'); ${wait(`${flag}3`)} db.close();`,
      );
      await printed(app, 'one');
      const first = await expectLogEqualsDatabase(node, 'a.db');
      writeFileSync(`${flag}1`, '');
      await printed(app, 'two');
      await sleep(1500);
      expect(await txidOf(node, 'a.db')).toBe(Number(first.position.txid));
      writeFileSync(`${flag}2`, '');
      await printed(app, 'three');
      const {position} = await expectLogEqualsDatabase(node, 'a.db');
      expect(position.txid).toBe(first.position.txid + 1n);
      writeFileSync(`${flag}3`, '');
      await app.output();
    });
  }

  test('a copy that pauses is captured when it is complete', async () => {
    node = await TestNode.start({role: 'primary'});
    await runSqlite(
      node.path('a.db'),
      `const db = new Database(path); db.exec('CREATE TABLE t (a, b)'); db.exec('INSERT INTO t VALUES (1, randomblob(100000))'); db.close();`,
    );
    const bytes = readFileSync(node.backing('a.db'));
    const file = await open(node.path('copy.db'), 'w');
    await file.write(bytes, 0, 40_000, 0);
    await sleep(1500);
    expect(await txidOf(node, 'copy.db')).toBe(0);
    const pid = node.daemonPid;
    await node.killDaemon();
    await until(
      () => node.daemonPid !== pid,
      60_000,
      () => node.log,
    );
    await file.write(bytes, 40_000, 10_000, 40_000);
    await sleep(1000);
    expect(await txidOf(node, 'copy.db')).toBe(0);
    await file.write(bytes, 50_000, bytes.length - 50_000, 50_000);
    await file.close();
    expect((await expectLogEqualsDatabase(node, 'copy.db')).position.txid).toBe(1n);
  });

  test('a database with a lock page in its middle, in every journal mode', async () => {
    const pendingByte = 0x20000;
    node = await TestNode.start({role: 'primary', set: {'debug.pending-byte': String(pendingByte)}});
    for (const pageSize of [512, 4096, 65_536]) {
      for (const mode of ['DELETE', 'WAL', 'MEMORY']) {
        const name = `${mode}-${pageSize}.db`;
        await runPython(
          node.path(name),
          `
import ctypes, sqlite3, sys
lib = ctypes.CDLL('libsqlite3.so.0')
lib.sqlite3_test_control(11, ctypes.c_uint(${pendingByte}))
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma page_size=${pageSize}')
db.execute('pragma journal_mode=${mode}')
db.execute('create table t (a integer primary key, b)')
for i in range(12):
    db.execute('insert into t (b) values (randomblob(30000))')
db.execute('delete from t where a < 8')
db.execute('vacuum')
for i in range(10):
    db.execute('insert into t (b) values (randomblob(30000))')
assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'
db.close()`,
        );
        await expectLogEqualsDatabase(node, name, {pendingByte});
        const image = await readLogImage(node.data, name, pendingByte);
        expect(image?.bytes.length).toBeGreaterThan(pendingByte + pageSize);
      }
    }
  });

  test('one transaction, WAL and database of more than a gibibyte', async () => {
    node = await TestNode.start({role: 'primary'});
    await runSqlite(
      node.path('small.db'),
      `const db = new Database(path); db.pragma('journal_mode = WAL'); db.exec('CREATE TABLE t (a)'); db.close();`,
    );
    await runSqlite(
      node.path('big.db'),
      `const db = new Database(path); db.pragma('page_size = 65536'); db.pragma('journal_mode = WAL'); db.pragma('wal_autocheckpoint = 0');
      db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)'); db.exec('BEGIN'); const insert = db.prepare('INSERT INTO t (b) VALUES (zeroblob(64000000))');
      for (let i = 0; i < 18; i++) insert.run(); db.exec('COMMIT'); print(fs.statSync(path + '-wal').size); db.exec('DELETE FROM t WHERE a < 3'); db.close();`,
    );
    const {pageCount, position} = await expectLogEqualsDatabase(node, 'big.db');
    expect(pageCount * 65_536).toBeGreaterThan(0x4000_0000);
    expect(position.txid).toBe(4n);
  }, 240_000);

  for (const mode of ['DELETE', 'PERSIST', 'WAL', 'MEMORY']) {
    test(`${mode}: a full disk fails commits, and all is well when there is room again`, async () => {
      node = await TestNode.start({role: 'primary'});
      expect(await node.stop()).toBe(0);
      await runCommand('mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', node.data);
      try {
        await node.restart();
        const flag = join(node.directory, 'go');
        const app = sqliteApp(
          node.path('a.db'),
          `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.pragma('wal_autocheckpoint = 50'); db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY, b)');
          const insert = db.prepare('INSERT INTO t (b) VALUES (randomblob(5000))'); let told = 0; let failures = 0;
          const go = () => { try { insert.run(); told++; } catch (error) { if (!/FULL|IOERR/.test(error.code)) throw error; failures++; if (db.inTransaction) db.exec('ROLLBACK'); } };
          for (let i = 0; i < 20; i++) go(); print('ready'); ${wait(`${flag}1`)} for (let i = 0; i < 200; i++) go(); print('full'); ${wait(`${flag}2`)}
          const failed = failures; for (let i = 0; i < 20; i++) { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100); go(); }
          print(JSON.stringify({failed, after: failures - failed, lost: told - db.prepare('SELECT count(*) FROM t').pluck().get(), check: db.pragma('integrity_check')[0].integrity_check})); db.close();`,
        );
        await printed(app, 'ready');
        const {bavail, bsize} = statfsSync(node.data);
        writeFileSync(
          join(node.data, 'filler'),
          Buffer.alloc(Math.max(0, Number(bavail) * Number(bsize) - 300_000)),
        );
        writeFileSync(`${flag}1`, '');
        await printed(app, 'full');
        rmSync(join(node.data, 'filler'));
        writeFileSync(`${flag}2`, '');
        const result = JSON.parse((await app.output()).trim().split('\n').at(-1) ?? '');
        expect(result).toMatchObject({lost: 0, check: 'ok'});
        expect(result.failed).toBeGreaterThan(0);
        expect(result.after).toBeLessThan(5);
        await expectLogEqualsDatabase(node, 'a.db');
        await node.stop();
      } finally {
        await node.killAll();
        await runCommand('umount', '-l', node.mount).catch(() => undefined);
        await runCommand('umount', '-l', node.data);
      }
    });
  }

  test('a database whose files are deleted by hand and made anew, under way and after', async () => {
    node = await TestNode.start({role: 'primary'});
    for (let round = 0; round < 3; round++) {
      await runSqlite(
        node.path('a.db'),
        `const db = new Database(path); db.pragma('journal_mode = ${round === 1 ? 'DELETE' : 'WAL'}'); db.exec('CREATE TABLE t (a)'); db.exec('INSERT INTO t VALUES (randomblob(9000))');
        fs.unlinkSync(path); if (fs.existsSync(path + '-wal')) fs.unlinkSync(path + '-wal'); process.kill(process.pid, 'SIGKILL');`,
      ).catch(() => undefined);
      expect(existsSync(node.backing('a.db'))).toBe(false);
      expect(await txidOf(node, 'a.db')).toBe(0);
    }
    await runCommand('rm', '-f', node.path('a.db-shm'));
    await runSqlite(
      node.path('a.db'),
      `const db = new Database(path); db.exec('CREATE TABLE t (a)'); db.close();`,
    );
    expect((await expectLogEqualsDatabase(node, 'a.db')).position.txid).toBe(1n);
  });
});
