import {copyFile, mkdir, rename, rm} from 'node:fs/promises';
import {afterAll, beforeAll, expect, test} from 'vitest';
import type {TestNode} from '../support/node.ts';
import {until} from '../support/node.ts';
import {expectEqual, JOURNAL_MODES, position, python, shell, startPair} from './support.ts';

let primary: TestNode;
let follower: TestNode;
let destroy: () => Promise<void>;

beforeAll(async () => {
  ({primary, follower, destroy} = await startPair());
});
afterAll(async () => await destroy());

const WORKLOAD = `
path, mode, page_size = sys.argv[1], sys.argv[2], sys.argv[3]
c = connect(path)
c.execute('pragma page_size=' + page_size)
c.execute('pragma journal_mode=' + mode)
c.execute('pragma cache_size=10')
c.execute('create table t(id integer primary key, v blob, n int)')
c.execute('create index ti on t(n)')
r = random.Random(7)
for i in range(30):
    c.execute('insert into t(v,n) values(?,?)', (r.randbytes(r.randrange(3000)), i))
c.execute('begin')
for i in range(600):
    c.execute('insert into t(v,n) values(?,?)', (r.randbytes(r.randrange(2000)), -i))
c.execute('commit')
if mode != 'off':
    c.execute('begin')
    c.execute('update t set v=randomblob(500)')
    c.execute('rollback')
    c.execute('begin')
    c.execute('insert into t(v) values(1)')
    c.execute('savepoint s')
    c.execute('delete from t where n<-100')
    c.execute('rollback to s')
    c.execute('commit')
c.execute('delete from t where n between -500 and -20')
c.execute('vacuum')
c.execute('insert into t(v,n) values(randomblob(100000), 5)')
print(c.execute('select count(*) from t').fetchone()[0])
c.close()
`;

test.each(JOURNAL_MODES.flatMap(mode => [512, 4096, 65536].map(pageSize => [mode, pageSize] as const)))(
  'journal mode %s with pages of %i bytes arrives byte for byte',
  async (mode, pageSize) => {
    const name = `${mode}-${pageSize}.db`;
    await python(WORKLOAD, [primary.path(name), mode, String(pageSize)]);
    await expectEqual(primary, follower, [name]);
  },
);

test('switching between WAL and DELETE in both directions, with the page size changed by VACUUM on the way', async () => {
  const name = 'switch.db';
  for (const sql of [
    'pragma journal_mode=delete; create table t(x); insert into t values(1)',
    'pragma journal_mode=wal; insert into t values(2)',
    'pragma journal_mode=delete; insert into t values(3)',
    'pragma page_size=1024; vacuum; insert into t values(4)',
    'pragma journal_mode=wal; insert into t values(5)',
    'pragma journal_mode=truncate; pragma page_size=8192; vacuum; insert into t values(6)',
  ]) {
    await shell(primary.path(name), sql);
    await expectEqual(primary, follower, [name]);
  }
  expect(await shell(follower.path(name), 'select count(*) from t; pragma page_size')).toBe('6\n8192');
});

test('auto_vacuum full and incremental shrink the follower too', async () => {
  for (const [kind, mode] of [
    ['full', 'delete'],
    ['incremental', 'wal'],
  ] as const) {
    const name = `av-${kind}.db`;
    await shell(
      primary.path(name),
      `pragma auto_vacuum=${kind}; pragma journal_mode=${mode}; create table t(x); with recursive n(i) as (select 1 union all select i+1 from n where i<500) insert into t select randomblob(2000) from n; delete from t where rowid>50; pragma incremental_vacuum(200);`,
    );
    await expectEqual(primary, follower, [name]);
  }
});

test('a transaction over two attached databases', async () => {
  await shell(primary.path('one.db'), 'create table t(x)');
  await shell(primary.path('two.db'), 'create table t(x)');
  await shell(
    primary.path('one.db'),
    `attach '${primary.path('two.db')}' as b; begin; insert into t values(1); insert into b.t values(2); commit;`,
  );
  await expectEqual(primary, follower, ['one.db', 'two.db']);
});

test('databases in folders, renamed, deleted and made again, by rename over an existing one, by cp, .backup and VACUUM INTO', async () => {
  await mkdir(primary.path('tenants/eu'), {recursive: true});
  await shell(primary.path('tenants/eu/a.db'), 'create table t(x); insert into t values(1)');
  await expectEqual(primary, follower, ['tenants/eu/a.db']);
  await rename(primary.path('tenants/eu/a.db'), primary.path('tenants/eu/b.db'));
  await shell(primary.path('tenants/eu/b.db'), 'insert into t values(2)');
  await expectEqual(primary, follower, ['tenants/eu/b.db']);
  await rename(primary.path('tenants/eu'), primary.path('tenants/us'));
  await shell(primary.path('tenants/us/b.db'), 'insert into t values(3)');
  await expectEqual(primary, follower, ['tenants/us/b.db']);
  await shell(primary.path('tenants/us/b.db'), `vacuum into '${primary.path('tenants/us/copy.db')}'`);
  await shell(primary.path('tenants/us/b.db'), `.backup ${primary.path('tenants/us/backup.db')}`);
  await copyFile(primary.backing('tenants/us/b.db'), `${primary.directory}/plain.db`);
  await copyFile(`${primary.directory}/plain.db`, primary.path('tenants/us/cp.db'));
  await expectEqual(primary, follower, ['tenants/us/copy.db', 'tenants/us/backup.db', 'tenants/us/cp.db']);
  await rename(primary.path('tenants/us/copy.db'), primary.path('tenants/us/b.db'));
  await shell(primary.path('tenants/us/b.db'), 'insert into t values(4)');
  await expectEqual(primary, follower, ['tenants/us/b.db']);
  await rm(primary.path('tenants/us/b.db'));
  await until(
    async () => (await position(follower, 'tenants/us/b.db')) === 'none',
    60_000,
    () => 'b.db is still on the follower',
  );
  await shell(primary.path('tenants/us/b.db'), 'pragma page_size=1024; create table other(y)');
  await expectEqual(primary, follower, ['tenants/us/b.db']);
  expect(await position(follower, 'tenants/us/b.db')).toMatch(/^0000000000000001\//);
});

test('an app that writes on a follower waits in its busy handler and is told that the database is locked', async () => {
  for (const mode of ['delete', 'wal']) {
    const name = `busy-${mode}.db`;
    await shell(
      primary.path(name),
      `pragma journal_mode=${mode}; create table t(x); insert into t values(1)`,
    );
    await expectEqual(primary, follower, [name]);
    await expect(shell(follower.path(name), '.timeout 200', 'insert into t values(2)')).rejects.toThrow(
      /database is locked/,
    );
    expect(await shell(follower.path(name), 'select count(*) from t')).toBe('1');
  }
});

test('files that are no databases stay on their node', async () => {
  await python("open(sys.argv[1], 'w').write('hello')", [primary.path('notes.txt')]);
  await python("open(sys.argv[1], 'w').write('other')", [follower.path('mine.txt')]);
  expect(
    await python("print(os.listdir(sys.argv[1]).count('notes.txt'), open(sys.argv[2]).read())", [
      follower.mount,
      follower.path('mine.txt'),
    ]),
  ).toBe('0 other');
});
