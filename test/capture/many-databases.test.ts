import {readdirSync} from 'node:fs';
import {afterEach, expect, test} from 'vitest';
import {expectLogEqualsDatabase, txidOf} from '../support/log-oracle.ts';
import {TestNode} from '../support/node.ts';
import {runSqlite} from './apps.ts';

const OPEN_FILES_MAX = 700;
const DATABASE_COUNT = 300;

let node: TestNode | undefined;

afterEach(async () => {
  await node?.destroy();
});

test('more databases in use than there may be files open: the oldest are put away, and nothing is lost', async () => {
  const under = ['prlimit', `--nofile=${OPEN_FILES_MAX}:${OPEN_FILES_MAX}`];
  node = await TestNode.start({role: 'primary', under});
  await runSqlite(
    node.path(''),
    `for (const round of [1, 2]) for (let i = 0; i < ${DATABASE_COUNT}; i++) {
      const db = new Database(path + '/' + i + '.db'); if (i % 2 === 0) db.pragma('journal_mode = WAL');
      db.exec('CREATE TABLE IF NOT EXISTS t (a)'); db.prepare('INSERT INTO t VALUES (?)').run(round); db.close();
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10); }`,
  );
  expect(readdirSync(`/proc/${node.daemonPid}/fd`).length).toBeLessThan(OPEN_FILES_MAX);
  expect(node.log).not.toContain('level=ERROR');
  for (const i of [0, 1, 150, 151, DATABASE_COUNT - 1]) {
    await expectLogEqualsDatabase(node, `${i}.db`);
    expect(await txidOf(node, `${i}.db`)).toBeGreaterThanOrEqual(3);
  }
});
