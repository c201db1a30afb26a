import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import {readdir, readFile, rm, stat, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, expect, test} from 'vitest';
import {databaseId} from '../support/log-oracle.ts';
import {pretendReboot, TestNode, until} from '../support/node.ts';
import {digest, expectEqual, forgetCommits, position, python, shell} from './support.ts';

const nodes: TestNode[] = [];

afterEach(async () => {
  for (const node of nodes.splice(0).reverse()) await node.destroy();
});

async function startPrimary(set: Readonly<Record<string, string>> = {}): Promise<TestNode> {
  const node = await TestNode.start({role: 'primary', set});
  nodes.push(node);
  return node;
}

async function startFollower(
  primary: TestNode,
  set: Readonly<Record<string, string>> = {},
): Promise<TestNode> {
  const node = await TestNode.start({role: 'follower', primary, set});
  nodes.push(node);
  return node;
}

/** Moves money between accounts until the time is over. Prints how many transactions were acknowledged and the longest pause in ms. */
const WRITER = `
path, mode, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
c = connect(path)
c.execute('pragma journal_mode=' + mode)
c.execute('create table if not exists acc(id integer primary key, v int)')
c.execute('create table if not exists log(id integer primary key, t text)')
if c.execute('select count(*) from acc').fetchone()[0] == 0:
    c.execute('begin')
    for i in range(500): c.execute('insert into acc values(?,100)', (i,))
    c.execute('commit')
before = c.execute('select count(*) from log').fetchone()[0]
n, worst, end = 0, 0, time.time() + seconds
while time.time() < end:
    t = time.time()
    c.execute('begin immediate')
    c.execute('update acc set v=v-1 where id=?', (random.randrange(500),))
    c.execute('update acc set v=v+1 where id=?', (random.randrange(500),))
    c.execute('insert into log(t) values(?)', ('x' * random.randrange(300),))
    c.execute('commit')
    n += 1
    worst = max(worst, time.time() - t)
rows = c.execute('select count(*) from log').fetchone()[0]
assert rows == before + n, (rows, before, n)
print(n, int(worst * 1000))
`;

/** Reads until the time is over and checks what no mixed state could show. Prints the number of reads. */
const READER = `
path, seconds, cache = sys.argv[1], float(sys.argv[2]), sys.argv[3]
c = connect(path)
c.execute('pragma cache_size=' + cache)
n, last, end = 0, 0, time.time() + seconds
while time.time() < end:
    c.execute('begin')
    total, count = c.execute('select sum(v), count(*) from acc').fetchone()
    newest, rows = c.execute('select coalesce(max(id),0), count(*) from log').fetchone()
    again = c.execute('select sum(v) from acc').fetchone()[0]
    c.execute('commit')
    assert (total, count, again) == (50000, 500, 50000), (total, count, again)
    assert newest == rows and newest >= last, (newest, rows, last)
    last = newest
    n += 1
    if n % 300 == 0:
        c.close()
        c = connect(path)
        c.execute('pragma cache_size=' + cache)
print(n)
`;

test('a new follower gets everything while writes go on, and one that was away catches up', async () => {
  const primary = await startPrimary();
  await python(
    "c = connect(sys.argv[1]); c.execute('pragma journal_mode=wal'); c.execute('create table big(x)'); c.execute('begin'); [c.execute('insert into big values(randomblob(9000))') for i in range(3000)]; c.execute('commit')",
    [primary.path('big.db')],
  );
  const writing = python(WRITER, [primary.path('bank.db'), 'wal', '8']);
  await sleep(1000);
  const follower = await startFollower(primary);
  await writing;
  await expectEqual(primary, follower, ['big.db', 'bank.db']);
  expect(await follower.stop()).toBe(0);
  await python(WRITER, [primary.path('bank.db'), 'wal', '2']);
  await shell(primary.path('big.db'), 'update big set x=randomblob(9000) where rowid % 3 = 0');
  await follower.restart();
  await expectEqual(primary, follower, ['big.db', 'bank.db']);
});

test('a follower that was away for longer than the log reaches back gets a snapshot, under an open reader', async () => {
  const primary = await startPrimary({'data.retention': '1ms', 'data.retention-monitor-interval': '200ms'});
  const follower = await startFollower(primary);
  await python(WRITER, [primary.path('bank.db'), 'wal', '1']);
  await expectEqual(primary, follower, ['bank.db']);
  await follower.killAll();
  await python(WRITER, [primary.path('bank.db'), 'wal', '1']);
  await follower.restart();
  await expectEqual(primary, follower, ['bank.db']);
});

test.each(['wal', 'delete'])(
  'readers on the follower never see a mixed state in %s mode, while the kernel drops its caches',
  async mode => {
    const primary = await startPrimary();
    const follower = await startFollower(primary);
    await python(WRITER, [primary.path('bank.db'), mode, '0.2']);
    await expectEqual(primary, follower, ['bank.db']);
    const dropping = python(
      `
end = time.time() + 8
while time.time() < end:
    open('/proc/sys/vm/drop_caches', 'w').write('1')
    time.sleep(0.1)
`,
      [],
    );
    const readers = ['5', '-2000'].map(cache => python(READER, [follower.path('bank.db'), '7', cache]));
    const written = await python(WRITER, [primary.path('bank.db'), mode, '7']);
    expect(Number(written.split(' ')[0])).toBeGreaterThan(0);
    for (const reads of await Promise.all(readers)) expect(Number(reads)).toBeGreaterThan(0);
    await dropping;
    await expectEqual(primary, follower, ['bank.db']);
  },
);

test('a long read on the follower keeps its snapshot and does not hold up what comes in WAL mode', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  await python(WRITER, [primary.path('bank.db'), 'wal', '0.2']);
  await expectEqual(primary, follower, ['bank.db']);
  const reading = python(
    `
c = connect(sys.argv[1])
c.execute('begin')
first = c.execute('select max(id) from log').fetchone()[0]
time.sleep(12)
assert c.execute('select max(id) from log').fetchone()[0] == first
c.execute('commit')
assert c.execute('select max(id) from log').fetchone()[0] > first
`,
    [follower.path('bank.db')],
  );
  await sleep(500);
  await python(WRITER, [primary.path('bank.db'), 'wal', '2']);
  await expectEqual(primary, follower, ['bank.db'], 8000); // Long before the reader is done.
  await reading;
});

test.each(['wal', 'delete', 'truncate', 'persist'])(
  'kill -9 of either daemon again and again in %s mode is a pause for the apps, nothing more',
  async mode => {
    const primary = await startPrimary();
    const follower = await startFollower(primary);
    await python(WRITER, [primary.path('bank.db'), mode, '0.2']);
    await expectEqual(primary, follower, ['bank.db']);
    const writing = python(WRITER, [primary.path('bank.db'), mode, '9']);
    const reading = python(READER, [follower.path('bank.db'), '9', '50']);
    for (let i = 0; i < 5; i++) {
      await sleep(800);
      await primary.killDaemon();
      await sleep(800);
      await follower.killDaemon();
    }
    expect(Number((await writing).split(' ')[0])).toBeGreaterThan(0);
    expect(Number(await reading)).toBeGreaterThan(0);
    await expectEqual(primary, follower, ['bank.db']);
  },
);

test('kill -9 of everything on a node, in the middle of writes, ends after a restart in equal positions and bytes', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  for (const [mode, victim] of [
    ['wal', primary],
    ['delete', primary],
    ['wal', follower],
    ['delete', follower],
  ] as const) {
    const name = `${mode}.db`;
    await python(WRITER, [primary.path(name), mode, '0.2']);
    const writing = python(WRITER, [primary.path(name), mode, '3']).catch(() => 'its files are gone');
    await sleep(1500);
    await victim.killAll();
    await writing;
    await victim.restart();
    await shell(primary.path(name), 'insert into log(t) values(1)');
    await expectEqual(primary, follower, [name]);
  }
});

for (const end of ['killAll', 'stop'] as const) {
  test(`a follower that lost bytes with the power, and whose first start ends by ${end} before a copy comes, takes one later`, async () => {
    const primary = await startPrimary();
    const follower = await startFollower(primary, {'skip-sync': 'true'});
    await python(
      "c = connect(sys.argv[1]); c.execute('create table big(x)'); c.execute('begin'); [c.execute('insert into big values(randomblob(900))') for i in range(300)]; c.execute('commit')",
      [primary.path('a.db')],
    );
    await expectEqual(primary, follower, ['a.db']);
    await follower.killAll();
    await primary.stop();
    pretendReboot(follower);
    const file = openSync(follower.backing('a.db'), 'r+');
    writeSync(file, Buffer.alloc(64), 0, 64, 20 * 4096);
    closeSync(file);
    await follower.restart();
    await follower[end]();
    await primary.restart();
    await follower.restart();
    const expected = await digest(primary.path('a.db'));
    await until(
      async () => (await digest(follower.path('a.db')).catch(() => '')) === expected,
      30_000,
      () => follower.log,
    );
  });
}

test('a primary that lost commits which its follower has: reported, kept in lost/, and equal again', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  await shell(primary.path('a.db'), 'pragma journal_mode=wal; create table t(x); insert into t values(1)');
  await expectEqual(primary, follower, ['a.db']);
  await forgetCommits(primary, async () => {
    await shell(primary.path('a.db'), 'insert into t values(2); insert into t values(3)');
    await expectEqual(primary, follower, ['a.db']);
  });
  await primary.restart();
  await shell(primary.path('a.db'), 'insert into t values(4)');
  await expectEqual(primary, follower, ['a.db']);
  expect(await shell(follower.path('a.db'), 'select group_concat(x) from t')).toBe('1,4');
  expect(follower.log).toContain('this node has transactions that the primary lost');
  expect(await readdir(join(follower.data, 'lost'))).toHaveLength(1);
});

test("a follower's log that is damaged is kept in lost/ and replaced; one that can't be opened holds up no other", async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  const names = ['damaged.db', 'stuck.db', 'good.db'];
  for (const name of names)
    await shell(primary.path(name), 'pragma journal_mode=wal; create table t(x); insert into t values(1)');
  await expectEqual(primary, follower, names);
  await follower.killAll();
  const base = new Map(
    names.map(name => [name, join(follower.data, 'databases', idOf(follower, name), 'log', 'base')]),
  );
  const [damaged = '', stuck = ''] = base.values();
  writeFileSync(damaged, 'no base');
  renameSync(stuck, join(follower.data, 'base-away'));
  mkdirSync(stuck); // EISDIR stands for whatever a disk may say.

  const restarting = follower.restart();
  for (const name of names) await shell(primary.path(name), 'insert into t values(2)');
  await expectEqual(primary, follower, ['damaged.db', 'good.db']);
  expect(follower.log).toMatch(/database not followed for now.*stuck\.db/);
  expect(follower.log).not.toContain('daemon died');
  const [lost = ''] = await readdir(join(follower.data, 'lost'));
  expect(await readFile(join(follower.data, 'lost', lost, 'log', 'base'), 'utf8')).toBe('no base');

  rmdirSync(stuck);
  renameSync(join(follower.data, 'base-away'), stuck);
  await restarting;
  await expectEqual(primary, follower, names);
});

function idOf(node: TestNode, name: string): string {
  const lines = readFileSync(join(node.data, 'catalog'), 'utf8').trim().split('\n');
  return lines.map(line => JSON.parse(line)).findLast(line => line.name === name).id;
}

/** Reads in a transaction of its own, which keeps the follower out in rollback mode, until it is let go. */
async function holdReader(node: TestNode, name: string): Promise<{letGo: () => Promise<void>}> {
  const flag = join(node.directory, `${name}-flag`);
  const reading = python(
    `
c = connect(sys.argv[1])
c.execute('begin')
c.execute('select * from t').fetchone()
open(sys.argv[2] + '-held', 'w').close()
end = time.time() + 40
while time.time() < end and not os.path.exists(sys.argv[2]): time.sleep(0.02)
`,
    [node.path(name), flag],
  );
  await until(
    async () => (await readdir(node.directory)).includes(`${name}-flag-held`),
    20_000,
    () => 'not held',
  );
  return {
    letGo: async () => {
      await writeFile(flag, '');
      await reading;
    },
  };
}

/** Commits on the primary and waits until the follower's log has it, which its files can't follow. */
async function commitHeldUp(primary: TestNode, follower: TestNode, name: string): Promise<void> {
  const folder = join(follower.data, 'databases', databaseId(follower.data, name) ?? '', 'log');
  const size = async () => {
    const names = (await readdir(folder)).filter(found => found.endsWith('.ltxs'));
    const sizes = await Promise.all(names.map(async found => (await stat(join(folder, found))).size));
    return sizes.reduce((sum, each) => sum + each, 0);
  };
  const before = await size();
  await shell(primary.path(name), 'insert into t values(2)');
  await until(
    async () => (await size()) > before,
    20_000,
    () => `not in the log:\n${follower.log}`,
  );
}

test('a stream that breaks while a reader on the follower holds a transaction up: it counts as received', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  await shell(primary.path('a.db'), 'create table t(x); insert into t values(1)');
  await expectEqual(primary, follower, ['a.db']);
  const reader = await holdReader(follower, 'a.db');
  await commitHeldUp(primary, follower, 'a.db');
  const welcomes = () => follower.log.split('following primary').length;
  const before = welcomes();
  await primary.killDaemon();
  await until(
    () => welcomes() > before,
    20_000,
    () => `not connected again:\n${follower.log}`,
  );
  await reader.letGo();
  await expectEqual(primary, follower, ['a.db']); // By itself: the primary has nothing to send.
  await shell(primary.path('a.db'), 'insert into t values(3)');
  await expectEqual(primary, follower, ['a.db']);
  expect(follower.log).not.toContain('LTX_GAP');
});

test('a database that is dropped while a reader keeps its follower from opening it is gone, and the others go on', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  await shell(primary.path('a.db'), 'create table t(x); insert into t values(1)');
  await shell(primary.path('b.db'), 'create table t(x); insert into t values(1)');
  await expectEqual(primary, follower, ['a.db', 'b.db']);
  expect(await follower.stop()).toBe(0); // What it knows of the pages is durable now.
  await follower.restart();
  const id = databaseId(follower.data, 'a.db') ?? '';
  const reader = await holdReader(follower, 'a.db');
  await commitHeldUp(primary, follower, 'a.db');
  await follower.killDaemon();
  await shell(primary.path('b.db'), 'insert into t values(2)');
  await expectEqual(primary, follower, ['b.db']);
  expect(await position(follower, 'a.db')).not.toBe(await position(primary, 'a.db'));
  await rm(primary.path('a.db'));
  await until(
    async () => !(await readdir(follower.mount)).includes('a.db'),
    20_000,
    () => `not dropped:\n${follower.log}`,
  );
  await reader.letGo();
  await primary.killDaemon();
  await shell(primary.path('b.db'), 'insert into t values(3)');
  await expectEqual(primary, follower, ['b.db'], 20_000);
  expect(await readdir(join(follower.data, 'databases'))).not.toContain(id);
});

test('a primary that lost commits, and a stream that breaks before the copy is there: the log is kept once', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  await shell(primary.path('a.db'), 'create table t(x); insert into t values(1)');
  await expectEqual(primary, follower, ['a.db']);
  await forgetCommits(primary, async () => {
    await shell(primary.path('a.db'), 'insert into t values(2); insert into t values(3)');
    await expectEqual(primary, follower, ['a.db']);
  });
  const reader = await holdReader(follower, 'a.db'); // Until it is gone no copy can take the place of the pages.
  await primary.restart();
  const rewound = async (count: number) =>
    await until(
      () => primary.log.split('follower has another history').length > count,
      20_000,
      () => `not rewound ${count} times:\n${follower.log}`,
    );
  await rewound(1);
  await primary.killDaemon();
  await rewound(2);
  await reader.letGo();
  await shell(primary.path('a.db'), 'insert into t values(4)');
  await expectEqual(primary, follower, ['a.db']);
  const kept = await readdir(join(follower.data, 'lost'));
  expect(kept).toHaveLength(1);
  expect(await readdir(join(follower.data, 'lost', kept[0]))).toContain('base');
});

test('a follower that does not know what its files hold takes a copy, and keeps the log that the copy replaces', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  await shell(primary.path('a.db'), "create table t(x); insert into t values('right')");
  await expectEqual(primary, follower, ['a.db']);
  const id = databaseId(follower.data, 'a.db') ?? '';
  await follower.killAll();
  await python("d = open(sys.argv[1], 'r+b'); b = d.read(); d.seek(b.index(b'right')); d.write(b'wrong')", [
    follower.backing('a.db'),
  ]);
  await rm(join(follower.data, 'databases', id, 'checksums'), {force: true}); // There once it was flushed.
  await follower.restart();
  await shell(primary.path('a.db'), 'insert into t values(2)');
  await expectEqual(primary, follower, ['a.db']);
  const [kept = ''] = await readdir(join(follower.data, 'lost'));
  expect(kept.slice(0, id.length)).toBe(id);
  expect((await readdir(join(follower.data, 'lost', kept))).some(name => name.endsWith('.ltxs'))).toBe(true);
});

test('an empty primary never makes a follower delete anything', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  await shell(primary.path('a.db'), 'create table t(x); insert into t values(1)');
  await expectEqual(primary, follower, ['a.db']);
  expect(await primary.stop()).toBe(0);
  await rm(primary.data, {recursive: true});
  await primary.restart();
  await until(
    () => follower.log.includes('primary not followed'),
    60_000,
    () => follower.log,
  );
  expect(await shell(follower.path('a.db'), 'select x from t')).toBe('1');
});

test('reload puts a new daemon in place of the old one while apps write', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  const writing = python(WRITER, [primary.path('bank.db'), 'wal', '4']);
  await sleep(1500);
  const before = primary.daemonPid;
  await primary.command('reload');
  expect(primary.daemonPid).not.toBe(before);
  await writing;
  await expectEqual(primary, follower, ['bank.db']);
});

test('with fuse.follower-writes: readonly a write on the follower is refused at once', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary, {'fuse.follower-writes': 'readonly'});
  for (const mode of ['delete', 'wal']) {
    await shell(
      primary.path(`${mode}.db`),
      `pragma journal_mode=${mode}; create table t(x); insert into t values(1)`,
    );
    await expectEqual(primary, follower, [`${mode}.db`]);
    await expect(shell(follower.path(`${mode}.db`), 'insert into t values(2)')).rejects.toThrow(
      /attempt to write a readonly database/,
    );
  }
});

test('the comparison sees a follower that is not equal', async () => {
  const primary = await startPrimary();
  const follower = await startFollower(primary);
  await shell(primary.path('a.db'), "create table t(x); insert into t values('right')");
  await expectEqual(primary, follower, ['a.db']);
  expect(await follower.stop()).toBe(0);
  await python("d = open(sys.argv[1], 'r+b'); b = d.read(); d.seek(b.index(b'right')); d.write(b'wrong')", [
    follower.backing('a.db'),
  ]);
  await follower.restart();
  expect(await position(follower, 'a.db')).toBe(await position(primary, 'a.db'));
  expect(await digest(follower.path('a.db'))).not.toBe(await digest(primary.path('a.db')));
});
