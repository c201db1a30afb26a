import {spawnSync} from 'node:child_process';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, expect, test} from 'vitest';
import {TestNode} from '../support/node.ts';
import {python, run, sqlite} from './posix-support.ts';

const DISK_BYTES = 12 * 1024 * 1024;
let disk: string;
let node: TestNode;

beforeEach(async () => {
  disk = mkdtempSync(join(tmpdir(), 'ferrite-disk-'));
  const {status, stderr} = spawnSync(
    'mount',
    ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'ferrite-test', disk],
    {encoding: 'utf8'},
  );
  if (status !== 0) throw new Error(stderr);
  node = await TestNode.start({role: 'primary', set: {'data.dir': join(disk, 'data')}});
});

afterEach(async () => {
  await node?.stop();
  await node?.destroy();
  spawnSync('umount', ['-l', disk]);
  rmSync(disk, {recursive: true, force: true});
});

test('a full disk is ENOSPC for files and folders, what was there stays, and after space is back all goes on', async () => {
  await python(
    node,
    `
put('kept', b'kept' * 1000)
put('short', b'')
fd = os.open('short', os.O_RDWR)
def fill():
    for i in range(4000): os.write(fd, bytes(65536))
fails('ENOSPC', fill)
fails('ENOSPC', fill)
fails('ENOSPC', os.pwrite, os.open('kept', os.O_RDWR), b'x' * 100_000, 1 << 20)
assert get('kept')[:4000] == b'kept' * 1000
size = os.fstat(fd).st_size
assert size > 1 << 20 and os.statvfs('.').f_bavail == 0
fails('ENOSPC', os.posix_fallocate, fd, 0, 1 << 30)
os.unlink('short'); os.close(fd)
end = time.time() + 20
while os.statvfs('.').f_bavail == 0 and time.time() < end: time.sleep(0.01)
put('after', b'a' * (size // 2))
assert get('after') == b'a' * (size // 2)
`,
  );
  expect(node.log).not.toContain('daemon died');
});

test.each(['delete', 'truncate', 'persist', 'wal'])(
  'SQLite in mode %s says "database or disk is full", keeps what was committed, and goes on afterwards',
  async mode => {
    await sqlite(
      node,
      'app.db',
      `PRAGMA journal_mode=${mode}; CREATE TABLE t(x); INSERT INTO t VALUES ('first');`,
    );
    const ballast = join(disk, 'ballast');
    const {size, free} = await freeBytes();
    writeFileSync(ballast, Buffer.alloc(Math.max(0, free - size / 6)));
    const out = await python(
      node,
      `
import sqlite3
db = sqlite3.connect('app.db', isolation_level=None, timeout=10)
done = 0
try:
    for i in range(4000):
        db.execute('INSERT INTO t VALUES (randomblob(20000))')
        done += 1
except sqlite3.Error as e: print(e, '|', done)
`,
    );
    const [message = '', done = ''] = out.split(' | ');
    expect(message).toBe('database or disk is full');
    rmSync(ballast);
    const after = await sqlite(
      node,
      'app.db',
      "PRAGMA integrity_check; SELECT count(*) - 1 FROM t; INSERT INTO t VALUES ('last'); SELECT count(*) - 2 FROM t;",
    );
    expect(after).toBe(`ok\n${done}\n${done}`);
    expect(node.log).not.toContain('daemon died');
    expect((await run('cat', [node.path('app.db-pos')])).out).toMatch(/^[0-9a-f]{16}\//);
  },
);

async function freeBytes(): Promise<{size: number; free: number}> {
  const {out} = await run('stat', ['-f', '-c', '%b %a %S', disk]);
  const [blocks = 0, free = 0, unit = 0] = out.split(' ').map(Number);
  return {size: blocks * unit, free: free * unit};
}
