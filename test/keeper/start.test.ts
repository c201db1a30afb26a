import {spawnSync} from 'node:child_process';
import {existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {createServer, type Server} from 'node:net';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, beforeEach, describe, expect, test} from 'vitest';
import {mountedAt} from '../../src/fuse/mount.ts';
import {python, shell} from '../replication/support.ts';
import {TestNode} from '../support/node.ts';
import {Attempt} from './support.ts';

let attempt: Attempt;
let node: TestNode | undefined;
let server: Server | undefined;

beforeEach(() => {
  attempt = new Attempt();
});

afterEach(async () => {
  server?.close();
  server = undefined;
  await node?.destroy();
  node = undefined;
  attempt.destroy();
});

describe('a configuration that cannot be used ends `mount` with 2, and nothing was touched', () => {
  const cases: readonly (readonly [string, (at: Attempt) => Readonly<Record<string, string>>, RegExp])[] = [
    [
      'the same directory twice',
      at => ({'data.dir': at.mount}),
      /^data\.dir is ".*": the same directory as fuse\.dir .*; name two directories/,
    ],
    [
      'data inside the mount',
      at => ({'data.dir': join(at.mount, 'data')}),
      /^data\.dir is ".*": inside fuse\.dir .*; name two directories/,
    ],
    [
      'the mount inside data',
      at => ({'data.dir': at.directory}),
      /^data\.dir is ".*": around fuse\.dir .*; name two directories/,
    ],
    [
      'a key that nobody knows',
      () => ({'data.retenton': '1m'}),
      /^data\.retenton \(line \d+\): unknown key; did you mean data\.retention\?$/,
    ],
    [
      'a value that is none',
      () => ({'data.retention': 'soon'}),
      /^data\.retention \(line \d+\) is "soon": not a duration; write/,
    ],
    [
      'a follower without a primary',
      () => ({'lease.candidate': 'false'}),
      /^lease\.advertise-url: missing.*; write the URL/,
    ],
  ];

  test.each(cases)('%s', async (_title, set, line) => {
    const {code, errors} = await attempt.run(attempt.config(set(attempt)));
    expect(code, errors).toBe(2);
    const lines = errors.split('\n');
    expect(lines).toHaveLength(2);
    expect(lines[0]).toBe(`ERROR: Cannot use config file "${attempt.configPath}":`);
    expect(lines[1]?.trim()).toMatch(line);
    expect(readdirSync(attempt.directory).sort()).toEqual(['ferrite.yml', 'mnt']);
    expect(readdirSync(attempt.mount)).toEqual([]);
  });

  test('everything wrong is told at once', async () => {
    const {code, errors} = await attempt.run(
      attempt.config({'data.retention': 'soon', 'lease.type': 'raft', 'fuse.foo': '1'}),
    );
    expect(code).toBe(2);
    expect(errors.split('\n')).toHaveLength(4);
  });

  test.each([
    ['no file', undefined, /^ERROR: Cannot find a config file: looked for ".*ferrite\.yml"$/],
    ['an empty file', '', /file: empty; write at least lease\.type$/],
    ['no YAML', 'fuse: [', /file \(line 1\): not YAML: .*; correct it$/],
  ])('%s', async (_title, text, message) => {
    const {code, errors} = await attempt.run(text);
    expect(code, errors).toBe(2);
    expect(errors).toMatch(message);
  });

  test('a file that cannot be read', async () => {
    const {code, errors} = await attempt.run(undefined, attempt.mount);
    expect(code).toBe(2);
    expect(errors).toMatch(/^ERROR: Cannot read config file ".*\/mnt": EISDIR/);
  });
});

test.each(['fuse.dir', 'data.dir'])(
  'a file where %s should be is an error that names it, not a crash',
  async key => {
    writeFileSync(join(attempt.directory, 'file'), 'precious');
    const {code, errors} = await attempt.run(attempt.config({[key]: join(attempt.directory, 'file')}));
    expect(code).toBeGreaterThan(0);
    expect(errors).toContain(join(attempt.directory, 'file'));
    expect(errors).not.toMatch(/^\s+at /m);
    expect(await readFile(join(attempt.directory, 'file'), 'utf8')).toBe('precious');
  },
);

test('a port in use ends `mount` with 1, names the port, and leaves no mount', async () => {
  const taken = createServer();
  server = taken;
  await new Promise<void>(resolve => taken.listen(0, '127.0.0.1', resolve));
  const address = taken.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  const {code, errors} = await attempt.run(attempt.config({'http.addr': `"127.0.0.1:${port}"`}));
  expect(code, errors).toBe(1);
  expect(errors).toMatch(
    new RegExp(
      `Cannot listen on 127\\.0\\.0\\.1:${port}: another program uses the port; stop it or choose another http\\.addr`,
    ),
  );
  expect(mountedAt(attempt.mount)).toBeUndefined();
});

test('a second ferrite on one data directory is refused, and the first goes on', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'create table t(x); insert into t values(1)');
  const {code, errors} = await attempt.run(attempt.config({'data.dir': node.data}));
  expect(code, errors).toBe(1);
  expect(errors).toBe(`ERROR: Cannot use "${node.data}": another ferrite serves it; stop that one first`);
  expect(mountedAt(attempt.mount)).toBeUndefined();
  expect(await shell(node.path('a.db'), 'insert into t values(2); select count(*) from t')).toBe('2');
  expect(await node.stop()).toBe(0);
});

test('a second ferrite on one mount is refused, and the first goes on', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'create table t(x); insert into t values(1)');
  const {code, errors} = await attempt.run(attempt.config({'fuse.dir': node.mount}));
  expect(code, errors).toBe(1);
  expect(errors).toBe(
    `ERROR: Cannot mount "${node.mount}": ferritefs (fuse) is mounted there; unmount it or choose another fuse.dir`,
  );
  expect(await shell(node.path('a.db'), 'insert into t values(2); select count(*) from t')).toBe('2');
});

test("somebody else's mount is left alone", async () => {
  expect(spawnSync('mount', ['-t', 'tmpfs', 'elsewhere', attempt.mount]).status).toBe(0);
  writeFileSync(join(attempt.mount, 'file'), 'precious');
  const {code, errors} = await attempt.run(attempt.config());
  expect(code, errors).toBe(1);
  expect(errors).toBe(
    `ERROR: Cannot mount "${attempt.mount}": elsewhere (tmpfs) is mounted there; unmount it or choose another fuse.dir`,
  );
  expect(mountedAt(attempt.mount)?.type).toBe('tmpfs');
  expect(await readFile(join(attempt.mount, 'file'), 'utf8')).toBe('precious');
});

test('the mount of a ferrite that was killed is replaced, also while an app still stands in it', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'pragma journal_mode=wal; create table t(x); insert into t values(1)');
  const holding = python(
    `
os.chdir(sys.argv[1])
f = open('a.db', 'rb')
end = time.time() + 40
while time.time() < end:
    try: os.close(os.open('a.db', os.O_RDONLY))
    except OSError: sys.exit(0)
    time.sleep(0.1)
sys.exit('its old mount still answers')
`,
    [node.mount],
  );
  await sleep(500);
  await node.killAll();
  expect(mountedAt(node.mount)?.source, 'a killed ferrite leaves its mount').toBe('ferritefs');
  await node.restart();
  await holding;
  expect(await shell(node.path('a.db'), 'insert into t values(2); select count(*) from t')).toBe('2');
  expect(await node.stop()).toBe(0);
  expect(mountedAt(node.mount)).toBeUndefined();
});

test('a mount directory that is not empty is covered, and there again afterwards', async () => {
  node = await TestNode.start({role: 'primary'});
  expect(await node.stop()).toBe(0);
  mkdirSync(join(node.mount, 'below'));
  await node.restart();
  await shell(node.path('a.db'), 'create table t(x)');
  expect(await node.stop()).toBe(0);
  expect(existsSync(join(node.mount, 'below'))).toBe(true);
  expect(readdirSync(node.mount)).toEqual(['below']);
});

test('a ferrite that is killed while it is still loading its spare daemon leaves nothing that holds the mount', async () => {
  node = await TestNode.start({role: 'primary'});
  await shell(node.path('a.db'), 'create table t(x)');
  for (const delayMs of [450, 600, 750]) {
    await sleep(delayMs);
    await node.killAll();
    await node.restart();
    expect(await shell(node.path('a.db'), 'insert into t values(1); select max(x) from t')).toBe('1');
  }
  expect(await node.stop()).toBe(0);
});

test('fuse.dir through a symbolic link is mounted, and unmounted at the end', async () => {
  symlinkSync(attempt.directory, `${attempt.directory}-link`);
  try {
    node = await TestNode.start({role: 'primary', set: {'fuse.dir': `${attempt.directory}-link/mnt`}});
    expect(mountedAt(attempt.mount)?.type).toBe('fuse');
    await shell(join(attempt.mount, 'a.db'), 'create table t(x); insert into t values(1)');
    expect(await node.stop()).toBe(0);
    expect(mountedAt(attempt.mount)).toBeUndefined();
  } finally {
    rmSync(`${attempt.directory}-link`);
  }
});
