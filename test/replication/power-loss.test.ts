import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, expect, test} from 'vitest';
import {LossyDisk} from '../support/lossy-disk.ts';
import {TestNode, until} from '../support/node.ts';
import {expectEqual, python, run, shell} from './support.ts';

const DISK_MIB = 192;
const MAIN = 'dist/cli/main.js';

/** Commits numbered rows until the time is over or something fails. Prints the last that it was told of. Some transactions are large. */
const COUNTER = `
path, mode, sync, seconds = *sys.argv[1:4], float(sys.argv[4])
done = 0
try:
    c = connect('file:' + path + '?mode=rw', uri=True) # Nothing is made in the folder below a mount that is gone.
    c.execute('pragma journal_mode=' + mode); c.execute('pragma synchronous=' + sync)
    n = c.execute('select coalesce(max(id), 0) from t').fetchone()[0]
    end = time.time() + seconds
    while time.time() < end:
        c.execute('begin'); n += 1
        c.execute('insert into t values(?, randomblob(?))', (n, 300000 if n % 40 == 0 else 50 + n * 37 % 6000))
        c.execute('update t set body = randomblob(200) where id = ?', (1 + n * 7919 % n,))
        c.execute('commit'); done = n
except sqlite3.Error:
    pass
print(done); sys.stdout.flush(); os._exit(0)
`;

const nodes: TestNode[] = [];

afterEach(async () => {
  for (const node of nodes.splice(0).reverse()) await node.destroy();
});

async function start(settings: Parameters<typeof TestNode.start>[0]): Promise<TestNode> {
  const node = await TestNode.start(settings);
  nodes.push(node);
  return node;
}

/** Lets `COUNTER` write, and in the middle of it the power of `victim` goes. Returns the last commit that it was told of. */
async function writeOverPowerLoss(
  primary: TestNode,
  victim: TestNode,
  [name, mode, sync]: readonly [string, string, string],
  ms: number,
): Promise<number> {
  const path = primary.path(name);
  await shell(
    path,
    `pragma journal_mode=${mode}; create table if not exists t(id integer primary key, body blob)`,
  );
  const count = (seconds: number) => python(COUNTER, [path, mode, sync, String(seconds)]);
  const before = Number(await count(0.2));
  const writing = count(ms / 1000 + 1);
  await sleep(ms);
  await victim.losePower();
  return Math.max(before, Number(await writing));
}

/** All numbers from 1 on without a gap, at least up to `last`: what was committed is there, and nothing else. */
async function expectRows(node: TestNode, name: string, last: number): Promise<void> {
  const [count, max] = (await shell(node.path(name), 'select count(*), max(id) from t'))
    .split('|')
    .map(Number);
  expect(count).toBe(max);
  expect(max).toBeGreaterThanOrEqual(last);
}

async function expectSound(node: TestNode): Promise<void> {
  expect(await node.stop()).toBe(0);
  await run('node', [MAIN, 'verify', node.data], 60_000);
}

// With FULL in mode DELETE, SQLite itself may undo the last commit after a loss of power: it does not flush the journal's removal.
test.each([
  ['wal', 'full'],
  ['delete', 'extra'],
  ['truncate', 'full'],
])(
  'a primary that loses power, mode %s, %s: keeps every commit, and its follower is equal again',
  async (mode, sync) => {
    const primary = await start({role: 'primary', disk: new LossyDisk(DISK_MIB)});
    const follower = await start({role: 'follower', primary});
    for (const ms of [600, 1600]) {
      const last = await writeOverPowerLoss(primary, primary, ['a.db', mode, sync], ms);
      await primary.restart();
      await expectRows(primary, 'a.db', last);
      await expectEqual(primary, follower, ['a.db']);
    }
    await expectSound(primary);
    await expectSound(follower);
  },
);

test('a primary that loses power, mode wal, normal: has lost some commits at most, and its follower is equal again', async () => {
  const primary = await start({role: 'primary', disk: new LossyDisk(DISK_MIB)});
  const follower = await start({role: 'follower', primary});
  await writeOverPowerLoss(primary, primary, ['a.db', 'wal', 'normal'], 1500);
  await primary.restart();
  await expectRows(primary, 'a.db', 0);
  await expectEqual(primary, follower, ['a.db']);
  await expectSound(primary);
  await expectSound(follower);
});

test.each(['wal', 'delete'])('a follower that loses power, mode %s, is equal again', async mode => {
  const primary = await start({role: 'primary'});
  const follower = await start({role: 'follower', primary, disk: new LossyDisk(DISK_MIB)});
  for (const ms of [600, 1600]) {
    await writeOverPowerLoss(primary, follower, ['a.db', mode, 'normal'], ms);
    await follower.restart();
    await expectEqual(primary, follower, ['a.db']);
  }
  await expectSound(primary);
  await expectSound(follower);
});

test('a disk that loses power has what was flushed, and not what was not', async () => {
  const node = await start({role: 'primary', disk: new LossyDisk(64)});
  await shell(node.path('a.db'), 'pragma synchronous=extra; create table t(id); insert into t values(1)');
  await python(
    `
c = connect(sys.argv[1]); c.execute('pragma synchronous=off'); c.execute('insert into t values(2)')
`,
    [node.path('a.db')],
  );
  await until(
    async () => (await shell(node.path('a.db'), 'select count(*) from t')) === '2',
    10_000,
    () => 'not written',
  );
  await node.losePower();
  expect(await shell(node.backing('a.db'), 'select count(*) from t')).toBe('1');
});
