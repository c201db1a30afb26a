import {copyFile, mkdir, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterAll, afterEach, beforeAll, describe, expect, test} from 'vitest';
import {databaseId} from '../support/log-oracle.ts';
import {TestNode, until} from '../support/node.ts';
import {expectEqual, forgetCommits, position, python, shell, startPair} from './support.ts';

/*
 * Traps that others fell into, each a real bug of a program of this kind, by name. Those with a test elsewhere:
 *
 * | trap | test |
 * |---|---|
 * | the daemon's bytes in -shm are overwritten by an app's flush | trouble: readers ... while the kernel drops its caches; engine/apply/takeover: open() mends ... |
 * | applying to a WAL without holding the read locks: "malformed" | trouble: readers on the follower never see a mixed state; engine/apply/readers |
 * | DMS byte: a read lock taken for a write lock | lib/libc: ofdLock() of two descriptors conflicts as SQLite expects |
 * | checkpoint between a commit and its record, then a crash | capture/crash; capture/modes: a large WAL transaction, checkpointed and restarted at once |
 * | a crash between the record and the commit; while a database grows | capture/crash: the daemon crashes at log:record-write; engine/apply/crash |
 * | WAL of more than a gibibyte; a full disk in the middle of it | capture/edges; mount/posix-full-disk |
 * | a dropped database that comes again begins at TXID 1, with any page size | modes: databases in folders, renamed, deleted and made again |
 * | a higher TXID than the primary's, a record that does not fit | trouble: a primary that lost commits; cluster/streams: a record that does not fit |
 * | a truncated record on disk | log/log-crash |
 * | data directory and mount are one: the kernel hangs | keeper/start: the same directory twice |
 * | acknowledged commits that a failover discards vanish silently | trouble: a primary that lost commits which its follower has |
 * | an empty node becomes the primary and everybody deletes everything | trouble: an empty primary never makes a follower delete anything |
 * | switch from WAL to DELETE without page 1; readers then take the wrong locks | modes: switching between WAL and DELETE; clients |
 * | a stream that is silent for ever; two primaries | cluster/streams-trouble: freeze; cluster/streams: a primary of a lower term |
 * | names that lead out of the data directory | mount/names: no path leads out of the data directory |
 * | journal_size_limit in PERSIST mode is an error to the app | capture/modes: journal_mode PERSIST with journal_size_limit |
 * | a rollback makes a transaction | capture/modes: one TXID for each commit, none for a rollback |
 * | a full disk is "disk I/O error" instead of "disk is full" | mount/posix-full-disk |
 * | journal modes MEMORY and OFF are acknowledged and not replicated | modes: journal mode memory, off |
 * | two daemons on one data directory; a dead mount prevents the start | keeper/start |
 * | the last commit before a kill is cut off at the start | capture/crash: everything is killed, then started again |
 */

describe('traps that need nothing but a pair of nodes', () => {
  let primary: TestNode;
  let follower: TestNode;
  let destroy: (() => Promise<void>) | undefined;

  beforeAll(async () => {
    ({primary, follower, destroy} = await startPair());
  });
  afterAll(async () => await destroy?.());

  test('PRAGMA journal_mode=wal on a database of zero bytes, before its first write', async () => {
    await writeFile(primary.path('zero.db'), '');
    await shell(primary.path('zero.db'), 'pragma journal_mode=wal');
    await shell(primary.path('zero.db'), 'create table migrations(x); insert into migrations values(1)');
    await expectEqual(primary, follower, ['zero.db']);
    expect(await shell(follower.path('zero.db'), 'pragma journal_mode; select x from migrations')).toBe(
      'wal\n1',
    );
  });

  test('a first transaction that is rolled back, with a spilled cache, and the empty database that it leaves can be removed', async () => {
    for (const mode of ['delete', 'wal']) {
      const name = `first-${mode}.db`;
      await python(
        `
c = connect(sys.argv[1])
c.execute('pragma cache_size=2')
c.execute('pragma journal_mode=${mode}')
c.execute('begin')
c.execute('create table t(x)')
for i in range(200): c.execute('insert into t values(randomblob(3000))')
c.execute('rollback')
c.close()
`,
        [primary.path(name)],
      );
      await rm(primary.path(name));
      await shell(primary.path(name), 'create table t(x); insert into t values(1)');
      await expectEqual(primary, follower, [name]);
    }
  });

  test('VACUUM that cuts off more than 256 pages in WAL mode', async () => {
    const rows =
      'with recursive n(i) as (select 1 union all select i+1 from n where i<3000) insert into t select randomblob(1500) from n';
    await shell(primary.path('shrink.db'), `pragma journal_mode=wal; create table t(x); ${rows}`);
    await expectEqual(primary, follower, ['shrink.db']);
    await shell(primary.path('shrink.db'), 'delete from t where rowid > 10; vacuum');
    await shell(primary.path('shrink.db'), 'insert into t values(2)');
    await expectEqual(primary, follower, ['shrink.db']);
    await shell(primary.path('shrink.db'), `pragma auto_vacuum=full; vacuum; ${rows}; delete from t`);
    await expectEqual(primary, follower, ['shrink.db']);
  });

  test('pages that are allocated and freed in one transaction are never written, in the first one too', async () => {
    for (const mode of ['delete', 'wal']) {
      const name = `unwritten-${mode}.db`;
      const freed = 'insert into t values(zeroblob(900000)); delete from t';
      await shell(
        primary.path(name),
        `pragma journal_mode=${mode}; pragma secure_delete=0; begin; create table t(x); ${freed}; insert into t values(1); commit`,
      );
      await expectEqual(primary, follower, [name]);
      await shell(
        primary.path(name),
        `pragma secure_delete=0; begin; ${freed}; insert into t values(2); commit`,
      );
      await expectEqual(primary, follower, [name]);
    }
  });

  test('padding frames, which SQLite writes where a sector may tear', async () => {
    await python(
      `
c = connect('file:' + sys.argv[1] + '?psow=0', uri=True)
c.execute('pragma page_size=512')
c.execute('pragma journal_mode=wal')
c.execute('pragma synchronous=full')
c.execute('create table t(x)')
for i in range(40): c.execute('insert into t values(?)', ('x' * i * 20,))
print(c.execute('select count(*) from t').fetchone()[0])
os._exit(0) # The -wal stays as it is.
`,
      [primary.path('padding.db')],
    );
    await expectEqual(primary, follower, ['padding.db']);
    expect(await shell(follower.path('padding.db'), 'select count(*) from t')).toBe('40');
    expect(await position(primary, 'padding.db')).toMatch(/^000000000000002[9a]\//); // 41 commits; the switch to WAL may be one
  });

  test('a PERSIST journal keeps entries of a longer transaction behind those of the one that is hot', async () => {
    await python(
      `
c = connect(sys.argv[1])
c.execute('pragma journal_mode=persist')
c.execute('create table t(x)')
for i in range(400): c.execute('insert into t values(randomblob(900))') if i else c.execute('begin')
c.execute('commit')
c.execute('update t set x=randomblob(900)')
c.execute('pragma cache_size=2')
c.execute('begin')
c.execute('update t set x=randomblob(900) where rowid < 100')
c.execute('delete from t where rowid > 300')
os._exit(0) # In the middle of a transaction that has reached the file.
`,
      [primary.path('persist.db')],
    );
    expect(await shell(primary.path('persist.db'), 'select count(*) from t; insert into t values(1)')).toBe(
      '399',
    );
    await expectEqual(primary, follower, ['persist.db']);
    expect(await shell(follower.path('persist.db'), 'select count(*) from t')).toBe('400');
  });

  test.each(['wal', 'delete'])(
    'a connection on the follower that maps the database sees what comes, grown, shrunk and rewritten, in %s mode',
    async mode => {
      const name = `mapped-${mode}.db`;
      await shell(
        primary.path(name),
        `pragma journal_mode=${mode}; create table t(x); insert into t values(0)`,
      );
      await expectEqual(primary, follower, [name]);
      const reading = python(
        `
c = connect(sys.argv[1])
c.execute('pragma mmap_size=100000000')
seen, end = set(), time.time() + 40
while time.time() < end:
    total, size, largest = c.execute('select count(*), sum(length(x)), max(rowid) from t').fetchone()
    assert c.execute('pragma quick_check').fetchone()[0] == 'ok'
    seen.add(total)
    if c.execute('select count(*) from t where x=?', ('end',)).fetchone()[0]: break
    time.sleep(0.02)
else: sys.exit('the end was never seen')
print(len(seen) > 1)
`,
        [follower.path(name)],
      );
      const rows =
        'with recursive n(i) as (select 1 union all select i+1 from n where i<400) insert into t select zeroblob(2000) from n';
      for (const sql of [
        rows,
        'update t set x=randomblob(2000)',
        'delete from t where rowid > 5; vacuum',
        rows,
        "insert into t values('end')",
      ]) {
        await shell(primary.path(name), '.timeout 5000', sql);
        await sleep(200);
      }
      expect(await reading).toBe('True');
      await expectEqual(primary, follower, [name]);
    },
  );

  test('readers without a busy timeout get no "locking protocol" and no "locked" while a large transaction arrives in WAL mode', async () => {
    await shell(
      primary.path('large.db'),
      'pragma journal_mode=wal; create table t(x); insert into t values(1)',
    );
    await expectEqual(primary, follower, ['large.db']);
    const reading = python(
      `
n, end, count = 0, time.time() + 40, 1
while count == 1 and time.time() < end:
    c = connect(sys.argv[1], timeout=0)
    count = c.execute('select count(*) from t').fetchone()[0]
    c.close()
    n += 1
print(count)
`,
      [follower.path('large.db')],
    );
    await shell(
      primary.path('large.db'),
      'with recursive n(i) as (select 1 union all select i+1 from n where i<4000) insert into t select randomblob(8000) from n',
    );
    expect(await reading).toBe('4001');
    await expectEqual(primary, follower, ['large.db']);
  });

  test('a reader that stays in its transaction holds up its own database at most', async () => {
    for (const name of ['held.db', 'free.db'])
      await shell(primary.path(name), 'create table t(x); insert into t values(1)');
    await expectEqual(primary, follower, ['held.db', 'free.db']);
    const flag = join(follower.directory, 'let-go');
    const holding = python(
      `
c = connect(sys.argv[1])
c.execute('begin')
c.execute('select * from t').fetchone()
open(sys.argv[2] + '-held', 'w').close()
end = time.time() + 40
while time.time() < end and not os.path.exists(sys.argv[2]): time.sleep(0.02)
print(c.execute('select count(*) from t').fetchone()[0])
`,
      [follower.path('held.db'), flag],
    );
    await until(
      async () => (await readdir(follower.directory)).includes('let-go-held'),
      60_000,
      () => 'not held',
    );
    await shell(primary.path('held.db'), 'insert into t values(2)');
    for (let i = 0; i < 5; i++) {
      await shell(primary.path('free.db'), `insert into t values(${i})`);
      await expectEqual(primary, follower, ['free.db']);
    }
    expect(await position(follower, 'held.db')).not.toBe(await position(primary, 'held.db'));
    await writeFile(flag, '');
    expect(await holding).toBe('1');
    await expectEqual(primary, follower, ['held.db']);
  });

  test('a copy with another page size over a database that is in use', async () => {
    await shell(
      primary.path('over.db'),
      'pragma page_size=4096; pragma journal_mode=wal; create table t(x); insert into t values(1)',
    );
    await expectEqual(primary, follower, ['over.db']);
    for (const [pageSize, mode] of [
      [1024, 'delete'],
      [16_384, 'wal'],
      [512, 'delete'],
    ] as const) {
      const source = join(primary.directory, `source-${pageSize}.db`);
      await shell(
        source,
        `pragma page_size=${pageSize}; pragma journal_mode=${mode}; create table t(x); insert into t values(${pageSize})`,
      );
      await copyFile(source, primary.path('over.db'));
      await until(
        async () => (await shell(primary.path('over.db'), 'select x from t')) === String(pageSize),
        60_000,
        () => 'not copied',
      );
      await shell(primary.path('over.db'), 'insert into t values(0)');
      await expectEqual(primary, follower, ['over.db']);
      expect(await shell(follower.path('over.db'), 'select max(x) from t')).toBe(String(pageSize));
    }
  });

  test('a database that is removed under its writer: neither node falls over, and a new one of that name arrives', async () => {
    for (const mode of ['wal', 'delete']) {
      const name = `removed-${mode}.db`;
      const writing = python(
        `
c = connect(sys.argv[1], timeout=0)
c.execute('pragma journal_mode=${mode}')
c.execute('create table t(x)')
c.execute('insert into t values(1)')
open(sys.argv[2], 'w').close()
end = time.time() + 2
try:
    while time.time() < end: c.execute('insert into t values(1)')
except sqlite3.Error: pass
`,
        [primary.path(name), join(primary.directory, `${name}-writing`)],
      );
      await until(
        async () => (await readdir(primary.directory)).includes(`${name}-writing`),
        20_000,
        () => 'nothing written',
      );
      await sleep(500);
      for (const suffix of ['', '-wal', '-shm', '-journal'])
        await rm(primary.path(`${name}${suffix}`), {force: true});
      await shell(
        primary.path(name),
        `pragma journal_mode=${mode}; create table other(y); insert into other values(5)`,
      );
      await writing;
      await expectEqual(primary, follower, [name]);
      expect(await shell(follower.path(name), 'select y from other')).toBe('5');
    }
  });

  test('files with the names of virtual ones, of databases that do not exist, and stray files harm nobody', async () => {
    await python(
      `
os.chdir(sys.argv[1])
for name in ['nothing-pos', 'nothing-lock', 'x.db-wal', 'x.db-journal', 'stray', 'empty.db']:
    try: open(name, 'wb').write(b'' if name == 'empty.db' else b'stray')
    except OSError as error: print(name, error)
for i in range(5): open('created-%d' % i, 'w').write('still works')
`,
      [primary.mount],
    );
    await shell(primary.path('after.db'), 'create table t(x)');
    await expectEqual(primary, follower, ['after.db']);
  });

  test('what looks like a database and is none, or no longer is, is never deleted, and stops nobody', async () => {
    await shell(primary.path('good.db'), 'create table t(x); insert into t values(1)');
    await expectEqual(primary, follower, ['good.db']);
    await writeFile(primary.path('short.db'), 'SQLite format 3\0');
    await writeFile(primary.path('magic.db'), Buffer.alloc(8192, 'no magic'));
    await shell(primary.path('broken.db'), 'create table t(x); insert into t values(1)');
    await expectEqual(primary, follower, ['broken.db']);
    await python("f = open(sys.argv[1], 'r+b'); f.write(b'x' * 100); f.close()", [primary.path('broken.db')]);
    const before = await readFile(primary.backing('broken.db'));
    const id = databaseId(primary.data, 'broken.db') ?? '';
    expect(await primary.stop()).toBe(0);
    await primary.restart();
    expect((await readFile(primary.path('broken.db'))).equals(before)).toBe(true);
    expect(await readdir(join(primary.data, 'databases', id))).toContain('log');
    expect(await readFile(primary.path('short.db'), 'utf8')).toBe('SQLite format 3\0');
    expect((await readFile(primary.path('magic.db'))).length).toBe(8192);
    await shell(primary.path('good.db'), 'insert into t values(2)');
    await expectEqual(primary, follower, ['good.db']);
  });

  test('an app that works on the files, checkpoints and all, while ferrite is stopped', async () => {
    await shell(
      primary.path('behind.db'),
      'pragma journal_mode=wal; create table t(x); insert into t values(1)',
    );
    await expectEqual(primary, follower, ['behind.db']);
    expect(await primary.stop()).toBe(0);
    await shell(
      primary.backing('behind.db'),
      'insert into t values(2); pragma wal_checkpoint(truncate); insert into t select x+10 from t',
    );
    await primary.restart();
    await expectEqual(primary, follower, ['behind.db']);
    expect(await shell(follower.path('behind.db'), 'select count(*) from t')).toBe('4');
  });

  test.each(['primary', 'follower'] as const)(
    'a damaged last record in the log of the %s does not keep it from starting',
    async victim => {
      const name = `damaged-${victim}.db`;
      await shell(
        primary.path(name),
        'create table t(x); insert into t values(1)',
        'insert into t values(randomblob(3000))',
      );
      await expectEqual(primary, follower, [name]);
      const node = victim === 'primary' ? primary : follower;
      expect(await node.stop()).toBe(0);
      const folder = join(node.data, 'databases', databaseId(node.data, name) ?? '', 'log');
      await python(
        `
folder = sys.argv[1]
path = max((os.path.join(folder, n) for n in os.listdir(folder)), key=os.path.getsize)
with open(path, 'r+b') as f:
    f.seek(-200, 2)
    byte = f.read(1)[0]
    f.seek(-1, 1)
    f.write(bytes([byte ^ 255]))
`,
        [folder],
      );
      await node.restart();
      await shell(primary.path(name), 'insert into t values(2)');
      await expectEqual(primary, follower, [name]);
      expect(await shell(follower.path(name), 'select count(*) from t')).toBe('3');
    },
  );
});

describe('traps that need nodes of their own', () => {
  const nodes: TestNode[] = [];

  afterEach(async () => {
    for (const node of nodes.splice(0).reverse()) await node.destroy();
  });

  async function start(settings: Parameters<typeof TestNode.start>[0]): Promise<TestNode> {
    const node = await TestNode.start(settings);
    nodes.push(node);
    return node;
  }

  test('the same TXID with another content: the follower notices, keeps what it had, and follows', async () => {
    const primary = await start({role: 'primary'});
    const follower = await start({role: 'follower', primary});
    await shell(primary.path('a.db'), 'pragma journal_mode=wal; create table t(x); insert into t values(1)');
    await expectEqual(primary, follower, ['a.db']);
    await forgetCommits(primary, async () => {
      await shell(primary.path('a.db'), "insert into t values('lost')");
      await expectEqual(primary, follower, ['a.db']);
    });
    expect(await follower.stop()).toBe(0);
    await primary.restart();
    await shell(primary.path('a.db'), "insert into t values('kept')");
    await follower.restart();
    await expectEqual(primary, follower, ['a.db']);
    expect(await shell(follower.path('a.db'), 'select group_concat(x) from t')).toBe('1,kept');
    expect(await readdir(join(follower.data, 'lost'))).toHaveLength(1);
  });

  test('data.retention: 0s keeps the log, and a follower that is killed while its first copy arrives gets it in the end', async () => {
    const primary = await start({role: 'primary', set: {'data.retention': '0s'}});
    await python(
      `
c = connect(sys.argv[1])
c.execute('pragma journal_mode=wal')
c.execute('create table t(x)')
c.execute('begin')
for i in range(6000): c.execute('insert into t values(randomblob(8000))')
c.execute('commit')
c.execute('pragma wal_checkpoint(truncate)')
`,
      [primary.path('big.db')],
    );
    const follower = await start({role: 'follower', primary, set: {'skip-sync': 'true'}});
    for (const delayMs of [30, 150, 300]) {
      await sleep(delayMs);
      await follower.killAll();
      await follower.restart();
    }
    await shell(primary.path('big.db'), 'insert into t values(1)');
    await expectEqual(primary, follower, ['big.db']);
    expect(await readdir(join(follower.data, 'incoming'))).toEqual([]);
  });

  test('SIGTERM ends a follower that waits at its start for a primary which is not there', async () => {
    const primary = await start({role: 'primary'});
    const follower = await start({role: 'follower', primary});
    await mkdir(primary.path('folder'));
    expect(await follower.stop()).toBe(0);
    expect(await primary.stop()).toBe(0);
    const starting = follower.restart().catch((error: unknown) => String(error));
    await sleep(3000);
    expect(await follower.stop()).toBe(0);
    expect(await starting).toContain('keeper ended with 0');
  });
});
