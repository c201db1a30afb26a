import {readdirSync, readFileSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, expect, test} from 'vitest';
import {mountedAt} from '../../src/fuse/mount.ts';
import {python, run, shell} from '../replication/support.ts';
import {expectLogEqualsDatabase} from '../support/log-oracle.ts';
import {TestNode, until} from '../support/node.ts';
import {isAlive} from './support.ts';

let node: TestNode;

/** Commits rows until something fails, and then writes how many it was told of to a file. */
const UNTIL_FAILURE = `
c = connect(sys.argv[1])
c.execute('create table t(x)')
n = 0
try:
    while True:
        c.execute('insert into t values(1)')
        n += 1
except sqlite3.OperationalError:
    pass
open(sys.argv[2], 'w').write(str(n))
os._exit(0)
`;

afterEach(async () => await node.destroy());

/** Commits row after row until the time is over. Prints how many, and the longest pause in ms. */
const WRITER = `
path, mode, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
c = connect(path, timeout=30)
c.execute('pragma journal_mode=' + mode)
c.execute('create table if not exists t(x integer primary key, v)')
n, worst, end = 0, 0, time.time() + seconds
while time.time() < end:
    began = time.time()
    c.execute('insert into t(v) values(randomblob(300))')
    n += 1
    worst = max(worst, time.time() - began)
assert c.execute('select count(*) from t').fetchone()[0] == n
print(n, int(worst * 1000))
`;

test.each(['wal', 'delete'])(
  'SIGTERM while apps hold databases open in %s mode: exit 0, nothing mounted, nothing lost',
  async mode => {
    node = await TestNode.start({role: 'primary'});
    const holding = python(
      `
c = connect(sys.argv[1])
c.execute('pragma journal_mode=${mode}')
c.execute('create table t(x)')
for i in range(20): c.execute('insert into t values(?)', (i,))
# It never maps -shm again, and ends when its file is gone.
end = time.time() + 40
while time.time() < end:
    try: os.close(os.open(sys.argv[1], os.O_RDONLY))
    except OSError: os._exit(0)
    time.sleep(0.1)
sys.exit('its mount still answers')
`,
      [node.path('a.db')],
    );
    await until(
      async () => (await shell(node.path('a.db'), 'select count(*) from t').catch(() => '')) === '20',
      20_000,
      () => 'not written',
    );
    expect(await node.stop()).toBe(0);
    expect(mountedAt(node.mount)).toBeUndefined();
    expect(isAlive(node.daemonPid)).toBe(false);
    expect(node.log).toContain('shut down complete');
    await holding;
    expect(await shell(node.backing('a.db'), 'select count(*) from t')).toBe('20');
  },
);

test('SIGTERM in the middle of writes: what was acknowledged is there, in the database and in its log', async () => {
  node = await TestNode.start({role: 'primary'});
  const writing = python(UNTIL_FAILURE, [node.path('a.db'), `${node.directory}/acknowledged`]);
  await sleep(1500);
  expect(await node.stop()).toBe(0);
  await writing;
  const acknowledged = Number(await readFile(`${node.directory}/acknowledged`, 'utf8'));
  expect(acknowledged).toBeGreaterThan(0);
  await node.restart();
  expect(Number(await shell(node.path('a.db'), 'select count(*) from t'))).toBeGreaterThanOrEqual(
    acknowledged,
  );
  await expectLogEqualsDatabase(node, 'a.db');
});

test('a second signal does not wait for the apps', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'create table t(x)');
  process.kill(node.daemonPid, 'SIGSTOP'); // It cannot let go, so only force helps.
  const {daemonPid, keeperPid} = node;
  const ended = node.stop();
  await sleep(300);
  process.kill(keeperPid, 'SIGTERM');
  expect(await ended).toBe(0);
  expect(mountedAt(node.mount)).toBeUndefined();
  await until(
    () => !isAlive(daemonPid),
    60_000,
    () => 'the daemon goes on',
  );
});

test('a daemon that hangs (SIGSTOP) is replaced while an app writes: a pause, and nothing more', async () => {
  node = await TestNode.start({role: 'primary'});
  const writing = python(WRITER, [node.path('a.db'), 'wal', '12']);
  await sleep(2000);
  const hung = node.daemonPid;
  process.kill(hung, 'SIGSTOP');
  const [count, worstMs] = (await writing).split(' ').map(Number);
  expect(count).toBeGreaterThan(0);
  expect(worstMs).toBeGreaterThan(1000);
  expect(node.log).toContain('daemon hangs while requests wait; replacing it');
  expect(node.daemonPid).not.toBe(hung);
  await until(
    () => !isAlive(hung),
    60_000,
    () => 'the daemon that hung is still there',
  );
  await expectLogEqualsDatabase(node, 'a.db');
  expect(await node.stop()).toBe(0);
});

test('a daemon that takes long before it serves is left alone, although requests wait', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'create table t(x)');
  const spare = await loadedSpare();
  process.kill(spare, 'SIGSTOP');
  await node.killDaemon();
  const waiting = shell(node.path('a.db'), 'insert into t values(1)');
  await sleep(8000);
  process.kill(spare, 'SIGCONT');
  await waiting;
  expect(node.daemonPid).toBe(spare);
  expect(node.log).not.toContain('daemon hangs');
});

/** Waits for the keeper's second daemon to have loaded: it has nothing to do then, and no CPU time passes. */
async function loadedSpare(): Promise<number> {
  let [spare, cpuTicks, idleSinceMs] = [-1, '', 0];
  await until(
    () => {
      const children = readFileSync(`/proc/${node.keeperPid}/task/${node.keeperPid}/children`, 'utf8');
      spare = Number(children.split(' ').find(pid => pid !== '' && Number(pid) !== node.daemonPid) ?? -1);
      if (spare < 0) return false;
      const ticks = readFileSync(`/proc/${spare}/stat`, 'utf8').split(' ').slice(13, 15).join();
      if (ticks !== cpuTicks) [cpuTicks, idleSinceMs] = [ticks, performance.now()];
      return performance.now() - idleSinceMs > 700;
    },
    30_000,
    () => 'no spare daemon',
  );
  return spare;
}

test('a daemon that stands still while nobody asks for anything is left alone', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'create table t(x)');
  const {daemonPid} = node;
  process.kill(daemonPid, 'SIGSTOP');
  await sleep(8000);
  process.kill(daemonPid, 'SIGCONT');
  await shell(node.path('a.db'), 'insert into t values(1)');
  expect(node.daemonPid).toBe(daemonPid);
  expect(node.log).not.toContain('daemon hangs');
});

test('a daemon that dies again and again is given up: apps get an error, the mount goes, exit 1', async () => {
  node = await TestNode.start({role: 'primary', env: {FERRITE_CRASH_AT: 'catalog:append'}});
  const writing = python(
    `
try:
    connect(sys.argv[1]).execute('create table t(x)')
except sqlite3.OperationalError as error:
    print(error)
`,
    [node.path('a.db')],
  );
  await until(
    () => !isAlive(node.keeperPid),
    50_000,
    () => node.log,
  );
  expect(await node.stop()).toBe(1);
  expect(await writing).not.toBe('');
  expect(node.log).toContain('daemon died again and again; giving up');
  expect(mountedAt(node.mount)).toBeUndefined();
});

test('when the keeper alone is killed the daemon unmounts and ends, and a new ferrite comes up', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'pragma journal_mode=wal; create table t(x); insert into t values(1)');
  const {daemonPid} = node;
  process.kill(node.keeperPid, 'SIGKILL');
  await until(
    () => mountedAt(node.mount) === undefined,
    60_000,
    () => node.log,
  );
  await until(
    () => !isAlive(daemonPid),
    60_000,
    () => node.log,
  );
  expect(readdirSync(node.mount)).toEqual([]);
  await node.restart();
  expect(await shell(node.path('a.db'), 'insert into t values(2); select count(*) from t')).toBe('2');
  await expectLogEqualsDatabase(node, 'a.db');
  expect(await node.stop()).toBe(0);
});

test('when the keeper is killed under an app, the app gets errors, and a new ferrite comes up at once', async () => {
  node = await TestNode.start({role: 'primary'});
  const writing = python(UNTIL_FAILURE, [node.path('a.db'), `${node.directory}/acknowledged`]);
  await sleep(1500);
  process.kill(node.keeperPid, 'SIGKILL');
  await node.restart();
  await writing;
  const acknowledged = Number(await readFile(`${node.directory}/acknowledged`, 'utf8'));
  expect(acknowledged).toBeGreaterThan(0);
  expect(Number(await shell(node.path('a.db'), 'select count(*) from t'))).toBeGreaterThanOrEqual(
    acknowledged,
  );
  await expectLogEqualsDatabase(node, 'a.db');
});

test('unmounting by hand ends ferrite with 0', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'create table t(x); insert into t values(1)');
  await run('umount', [node.mount], 60_000);
  await until(
    () => !isAlive(node.keeperPid),
    60_000,
    () => node.log,
  );
  expect(await node.stop()).toBe(0);
  expect(await shell(node.backing('a.db'), 'select x from t')).toBe('1');
});
