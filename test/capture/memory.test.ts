import {readFileSync} from 'node:fs';
import {expect, test} from 'vitest';
import {TestNode} from '../support/node.ts';
import {runSqlite} from './apps.ts';

const MIB = 1024 * 1024;

/** Memory of a process that is backed by no file, in bytes (proc_pid_status(5)). */
function anonymousBytes(pid: number): number {
  const kib = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) * 1024;
}

const commit = (count: number) => `const db = new Database(path); db.pragma('journal_mode = WAL');
  db.pragma('synchronous = OFF'); db.exec('CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b)');
  const insert = db.prepare('INSERT OR REPLACE INTO t VALUES (?, randomblob(3500))');
  for (let i = 0; i < ${count}; i++) insert.run(i % 100); db.close();`;

test("the daemon's memory doesn't grow with the number of transactions", async () => {
  const node = await TestNode.start({role: 'primary'});
  try {
    await runSqlite(node.path('app.db'), commit(4000));
    const before = anonymousBytes(node.daemonPid);
    await runSqlite(node.path('app.db'), commit(16_000));
    // Their pages are 64 MiB, compressed not much less.
    expect(anonymousBytes(node.daemonPid) - before).toBeLessThan(24 * MIB);
  } finally {
    await node.destroy();
  }
});
