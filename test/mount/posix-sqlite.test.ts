import {existsSync, statSync} from 'node:fs';
import {afterAll, afterEach, beforeAll, expect, test} from 'vitest';
import {TestNode} from '../support/node.ts';
import {python, run, shell, sqlite} from './posix-support.ts';

let node: TestNode;
beforeAll(async () => {
  node = await TestNode.start({role: 'primary'});
});
afterEach(() => expect(node.log).not.toContain('daemon died'));
afterAll(async () => await node?.destroy());

async function position(name: string): Promise<string> {
  return (await shell(node, `cat '${name}-pos'`)).out;
}

test.each(['delete', 'truncate', 'persist', 'memory', 'off', 'wal'])(
  'a database in journal mode %s, with mmap_size and without',
  async mode => {
    for (const mapped of [0, 1 << 26]) {
      const name = `mode-${mode}-${mapped}.db`;
      const sql = `PRAGMA mmap_size=${mapped}; PRAGMA journal_mode=${mode}; CREATE TABLE t(x);
      WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<3000) INSERT INTO t SELECT hex(randomblob(50)) FROM c;
      DELETE FROM t WHERE rowid % 3 = 0; UPDATE t SET x='y' WHERE rowid % 5 = 0; VACUUM; PRAGMA integrity_check; SELECT count(*) FROM t;`;
      expect((await sqlite(node, name, sql)).split('\n').slice(-2)).toEqual(['ok', '2000']);
      expect(
        await sqlite(node, name, `PRAGMA mmap_size=${mapped}; SELECT count(*) FROM t WHERE x='y';`),
      ).toContain('400');
      expect(
        (await run('sqlite3', [node.backing(name), 'PRAGMA integrity_check; SELECT count(*) FROM t'])).out,
      ).toBe('ok\n2000');
      expect(await position(name)).toMatch(/^[0-9a-f]{16}\//);
    }
  },
);

test('a reader that maps the database sees what another process commits', async () => {
  await python(
    node,
    `
import sqlite3
a, b = sqlite3.connect('mapped.db', isolation_level=None), sqlite3.connect('mapped.db', isolation_level=None)
for mode in ('delete', 'wal'):
    a.execute('PRAGMA journal_mode=' + mode)
    a.execute('PRAGMA mmap_size=10000000'); b.execute('PRAGMA mmap_size=10000000')
    a.execute('CREATE TABLE IF NOT EXISTS t(x)')
    for i in range(200):
        a.execute('INSERT INTO t VALUES (randomblob(900))')
        if i % 50 == 0: a.execute('PRAGMA wal_checkpoint')
        assert a.execute('SELECT count(*) FROM t').fetchone() == b.execute('SELECT count(*) FROM t').fetchone()
`,
  );
});

test('-shm: cut to 3 bytes, grown by one-byte writes, mapped shared, unlinked while mapped', async () => {
  await python(
    node,
    `
fd = os.open('s.db-shm', os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
os.ftruncate(fd, 3)
assert os.fstat(fd).st_size == 3
for page in range(8): os.pwrite(fd, b'\\0', page * 4096 + 4095)
assert os.fstat(fd).st_size == 32768
map = mmap.mmap(fd, 32768)
pid = os.fork()
if pid == 0:
    other = mmap.mmap(os.open('s.db-shm', os.O_RDWR), 32768)
    other[100:104] = b'read'; other[20000] = 9
    os._exit(0)
os.waitpid(pid, 0)
assert map[100:104] == b'read' and map[20000] == 9
os.unlink('s.db-shm')
map[200:203] = b'end'; map.flush()
assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 3, 200) == b'end'
`,
  );
});

test('a zero-length database can be made, opened, used and removed', async () => {
  await python(
    node,
    `
import sqlite3
put('zero.db', b'')
db = sqlite3.connect('zero.db')
assert db.execute('PRAGMA page_count').fetchone() == (0,)
db.close()
assert os.stat('zero.db').st_size == 0
os.unlink('zero.db')
put('zero.db', b'')
db = sqlite3.connect('zero.db'); db.execute('CREATE TABLE t(x)'); db.close()
assert os.stat('zero.db').st_size == 8192
os.truncate('zero.db', 0)
assert get('zero.db') == b''
os.unlink('zero.db')
`,
  );
});

test('text files, folders that look like databases, and dot-file locks pass through', async () => {
  await python(
    node,
    `
put('notes.db', b'just a text'); put('notes.db-wal', b'too'); put('notes.db-journal', b'and this')
assert get('notes.db') == b'just a text' and get('notes.db-wal') == b'too'
os.mkdir('folder.db'); os.mkdir('folder.db-journal'); os.mkdir('folder.db-wal')
`,
  );
  const dotfile = await run('sqlite3', [
    `file:${node.path('dot.db')}?vfs=unix-dotfile`,
    'CREATE TABLE t(x); INSERT INTO t VALUES (1); SELECT count(*) FROM t;',
  ]);
  expect(dotfile).toEqual({code: 0, out: '1'});
  expect((await shell(node, 'test -e dot.db.lock')).code).toBe(1);
});

test('a symlinked database is known by its real name, its journals lie beside it', async () => {
  await shell(node, 'mkdir real && ln -s real/app.db link.db');
  await python(
    node,
    `
import sqlite3
db = sqlite3.connect('link.db'); db.execute('PRAGMA journal_mode=wal'); db.execute('CREATE TABLE t(x)'); db.commit()
assert sorted(os.listdir('real')) == ['app.db', 'app.db-shm', 'app.db-wal'] and not os.path.exists('link.db-wal')
`,
  );
  expect(await position('real/app.db')).toMatch(/^[0-9a-f]{16}\//);
  expect((await shell(node, 'cat link.db-pos')).code).not.toBe(0);
});

test('a transaction over two attached databases, in every rollback mode', async () => {
  for (const mode of ['delete', 'truncate', 'persist']) {
    const sql = `PRAGMA journal_mode=${mode}; ATTACH '${node.path('two.db')}' AS two; PRAGMA two.journal_mode=${mode};
      CREATE TABLE IF NOT EXISTS main.t(x); CREATE TABLE IF NOT EXISTS two.t(x);
      BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO two.t VALUES (1); COMMIT;`;
    await sqlite(node, 'one.db', sql);
  }
  expect(await sqlite(node, 'one.db', 'SELECT count(*) FROM t;')).toBe('3');
  expect(await sqlite(node, 'two.db', 'SELECT count(*) FROM t; PRAGMA integrity_check;')).toBe('3\nok');
  expect((await shell(node, 'ls | grep -- -mj')).code).toBe(1);
});

test('SQLite notices that its database was moved or replaced', async () => {
  await python(
    node,
    `
import sqlite3
db = sqlite3.connect('moved.db', isolation_level=None); db.execute('CREATE TABLE t(x)')
os.rename('moved.db', 'away.db')
try: db.execute('INSERT INTO t VALUES (1)'); raise AssertionError('wrote to a moved database')
except sqlite3.OperationalError as e: assert 'readonly' in str(e), e
os.rename('away.db', 'moved.db')
db.execute('INSERT INTO t VALUES (2)')
assert db.execute('SELECT x FROM t').fetchall() == [(2,)]
`,
  );
});

test("a rename keeps the database's position, and a hard link that is removed costs nothing", async () => {
  await sqlite(node, 'first.db', 'CREATE TABLE t(x); INSERT INTO t VALUES (1);');
  const before = await position('first.db');
  expect((await shell(node, 'mv first.db second.db')).code).toBe(0);
  expect(await position('second.db')).toBe(before);
  expect(
    (await shell(node, 'ln second.db third.db && stat -c %h second.db third.db && rm third.db')).out,
  ).toBe('2\n2');
  expect(await position('second.db')).toBe(before);
  expect((await shell(node, 'ln second.db fourth.db && rm second.db')).code).toBe(0);
  expect(await position('fourth.db')).toBe(before);
  await sqlite(node, 'fourth.db', 'INSERT INTO t VALUES (2);');
  expect((await position('fourth.db')).slice(0, 16)).toBe(
    (BigInt(`0x${before.slice(0, 16)}`) + 1n).toString(16).padStart(16, '0'),
  );
});

test('copies over a database, other page sizes under the same name, and chunk-wise growth', async () => {
  await sqlite(node, 'copy.db', 'PRAGMA page_size=4096; CREATE TABLE t(x); INSERT INTO t VALUES (1);');
  await sqlite(node, 'source.db', 'PRAGMA page_size=65536; CREATE TABLE u(x); INSERT INTO u VALUES (7);');
  expect((await shell(node, 'cp source.db copy.db')).code).toBe(0);
  expect(await sqlite(node, 'copy.db', 'PRAGMA page_size; SELECT x FROM u; PRAGMA integrity_check;')).toBe(
    '65536\n7\nok',
  );
  await sqlite(node, 'copy.db', 'PRAGMA page_size=512; VACUUM; INSERT INTO u VALUES (8);');
  expect(
    await sqlite(node, 'copy.db', 'PRAGMA page_size; SELECT count(*) FROM u; PRAGMA integrity_check;'),
  ).toBe('512\n2\nok');
  expect(statSync(node.backing('copy.db')).size % 512).toBe(0);
});

test('after a stop the backing files are ordinary SQLite databases, journals and all', async () => {
  await sqlite(node, 'after.db', 'PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES (1);');
  const other = await TestNode.start({role: 'primary'});
  try {
    await sqlite(other, 'x/../plain.db', '').catch(() => undefined);
    await sqlite(other, 'app.db', 'PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES (42);');
    expect(await other.stop()).toBe(0);
    expect((await run('sqlite3', [other.backing('app.db'), 'SELECT x FROM t'])).out).toBe('42');
    expect(existsSync(other.path('app.db'))).toBe(false);
    await other.restart();
    expect(await sqlite(other, 'app.db', 'SELECT x FROM t;')).toBe('42');
  } finally {
    await other.destroy();
  }
});
