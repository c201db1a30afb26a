import {mkdirSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, afterEach, beforeAll, beforeEach, describe, expect, test} from 'vitest';
import {InodeTable} from '../../src/engine/mount/inode-table.ts';
import {VirtualFiles} from '../../src/engine/mount/virtual-files.ts';
import {TestNode, until} from '../support/node.ts';
import {python, shell, sqlite} from './posix-support.ts';

describe('VirtualFiles', () => {
  let directory: string;
  let inodes: InodeTable;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ferrite-virtual-'));
    for (const name of ['files', 'hidden', 'files/sub']) mkdirSync(join(directory, name));
    writeFileSync(join(directory, 'files/sub/app.db'), '');
    inodes = new InodeTable(join(directory, 'files'), join(directory, 'hidden'));
  });
  afterEach(() => rmSync(directory, {recursive: true}));

  function files(primary?: string, lag = 0): VirtualFiles {
    return new VirtualFiles({
      primaryHostname: () => primary,
      lagMs: () => lag,
      positionText: path => (path === 'sub/app.db' ? '0000000000000001/8000000000000002\n' : undefined),
    });
  }

  function textOf(virtual: VirtualFiles, path: string): string | undefined {
    const nodeid = virtual.find(path, inodes);
    return nodeid === undefined ? undefined : virtual.text(nodeid, inodes);
  }

  test('.primary is there only while another node is the primary', () => {
    expect(textOf(files('node-1'), '.primary')).toBe('node-1\n');
    expect(textOf(files(), '.primary')).toBeUndefined();
    expect(textOf(files('node-1'), 'sub/.primary')).toBeUndefined();
  });

  test.each([
    [0, '+000000000\n'],
    [12, '+000000012\n'],
    [-7, '-000000007\n'],
    [12_345_678_901, '+12345678901\n'],
    [2_147_483_647, '+2147483647\n'],
  ])('.lag of %i ms', (lag, text) => expect(textOf(files(undefined, lag), '.lag')).toBe(text));

  test("a position file belongs to a database, and its node ID to the database's file: another daemon finds it again", () => {
    const nodeid = files().find('sub/app.db-pos', inodes);
    expect(nodeid).toBeGreaterThan(2 ** 51);
    const after = new InodeTable(join(directory, 'files'), join(directory, 'hidden'));
    expect(files().text(nodeid ?? 0, after)).toBe('0000000000000001/8000000000000002\n');
    expect(files().find('sub/other.db-pos', inodes)).toBeUndefined();
    expect(files().find('app.db-pos', inodes)).toBeUndefined();
    expect(files().find('-pos', inodes)).toBeUndefined();
  });

  test("attributes are those of a read-only file of the text's size", () => {
    const nodeid = files().find('.lag', inodes) ?? 0;
    expect(files().attributes(nodeid, 1000, inodes)).toMatchObject({
      mode: 0o100444,
      nlink: 1,
      size: 11,
      mtimeNs: 1_000_000_000n,
    });
  });

  test('names are reserved while they are virtual, `.primary` and `.lag` always', () => {
    const reserved = ['.primary', '.lag', 'sub/app.db-pos', 'sub/.lag', 'app.db-pos', '.primary2'].map(path =>
      files().isReserved(path),
    );
    expect(reserved).toEqual([true, true, true, false, false, false]);
  });
});

describe('virtual files in a mount', () => {
  let node: TestNode;
  beforeAll(async () => {
    node = await TestNode.start({role: 'primary'});
    await sqlite(node, 'app.db', 'PRAGMA journal_mode=wal; CREATE TABLE t(x);');
  });
  afterAll(async () => await node?.destroy());

  test('a primary has `.lag` of 0, a position for each database, and no `.primary`', async () => {
    expect((await shell(node, 'cat .lag')).out).toBe('+000000000');
    expect((await shell(node, 'cat .primary')).code).not.toBe(0);
    expect((await shell(node, 'cat app.db-pos')).out).toMatch(/^[0-9a-f]{16}\/[0-9a-f]{16}$/);
    expect((await shell(node, 'wc -c < app.db-pos && stat -c "%s %a %F" app.db-pos')).out).toBe(
      '34\n34 444 regular file',
    );
    expect((await shell(node, 'cat none.db-pos; cat app.db-wal-pos')).code).not.toBe(0);
  });

  test('the position moves with each transaction, also for who holds the file open', async () => {
    const {out} = await shell(
      node,
      'exec 3< app.db-pos; for i in 1 2 3; do sqlite3 app.db "INSERT INTO t VALUES ($i)"; cat app.db-pos; done; cat <&3',
    );
    const [a = '', b = '', c = '', open = ''] = out.split('\n').map(line => line.slice(0, 16));
    expect(Number.parseInt(b, 16)).toBe(Number.parseInt(a, 16) + 1);
    expect(Number.parseInt(c, 16)).toBe(Number.parseInt(b, 16) + 1);
    expect(open).toBe(c);
  });

  test('they can be read and nothing else, and nothing takes their place', async () => {
    await python(
      node,
      `
put('plain'); os.mkdir('plain-folder')
for name in ('.lag', 'app.db-pos'):
    fails('EACCES', os.open, name, os.O_WRONLY); fails('EACCES', os.open, name, os.O_RDWR | os.O_TRUNC)
    fails('EEXIST', os.open, name, os.O_CREAT | os.O_EXCL | os.O_RDWR); fails('EEXIST', os.mkdir, name); fails('EEXIST', os.symlink, 'x', name)
    fails('EACCES', os.chmod, name, 0o777); fails('EACCES', os.truncate, name, 0); fails('EACCES', os.utime, name)
    fails('EACCES', os.rename, 'plain', name); fails('EEXIST', os.link, 'plain', name)
    fails('ENOENT', os.rename, name, 'taken'); fails('ENOENT', os.link, name, 'taken')
for make in (put, os.mkdir, os.mkfifo, lambda n: os.symlink('x', n), lambda n: os.link('plain', n), lambda n: os.rename('plain', n)):
    fails('EACCES', make, '.primary')
fd = os.open('app.db-pos', os.O_RDONLY)
assert os.pread(fd, 100, 17) == os.pread(fd, 100, 0)[17:] and os.pread(fd, 5, 34) == b'' and os.pread(fd, 5, 1 << 40) == b''
os.fsync(fd)
put('my-pos', b'an ordinary file'); assert get('my-pos') == b'an ordinary file'
os.unlink('my-pos')
`,
    );
  });

  test('listings leave them out; `cp -a app.db*`, `rm app.db*` and explicit removal go well', async () => {
    const {out, code} = await shell(
      node,
      'ls -A; mkdir backup && cp -a app.db* backup/ && rm app.db-pos && cat app.db-pos',
    );
    expect([code, out]).toMatchObject([0, expect.not.stringContaining('.lag')]);
    expect(out.split('\n').filter(name => name.endsWith('-pos'))).toEqual([]);
    expect((await shell(node, 'rm -f app.db app.db-pos app.db-wal app.db-shm && ls')).code).toBe(0);
    expect((await shell(node, 'cat app.db-pos')).out).toContain('No such file');
    await sqlite(node, 'app.db', 'CREATE TABLE t(x);');
    expect((await shell(node, 'cat app.db-pos')).out).toMatch(/^0000000000000001\//);
  });

  test('they follow a rename of the database and of its folder', async () => {
    await shell(node, 'mkdir f');
    await sqlite(node, 'f/a.db', 'CREATE TABLE t(x);');
    const before = (await shell(node, 'cat f/a.db-pos')).out;
    expect((await shell(node, 'mv f/a.db f/b.db && mv f g && cat g/b.db-pos')).out).toBe(before);
    expect((await shell(node, 'cat g/a.db-pos')).code).not.toBe(0);
  });

  test('an open position file outlives the daemon', async () => {
    const pid = node.daemonPid;
    const reading = python(
      node,
      `
fd = os.open('app.db-pos', os.O_RDONLY)
before = os.pread(fd, 100, 0)
put('ready'); wait_for('go')
now = os.pread(fd, 100, 0)
assert now[17:] == before[17:] and now == get('app.db-pos') and len(now) == 34, (before, now)
os.fstat(fd)
`,
    );
    await until(
      async () => (await shell(node, 'test -e ready')).code === 0,
      20_000,
      () => node.log,
    );
    await node.killDaemon();
    await Promise.all([reading, shell(node, 'touch go')]);
    expect(node.daemonPid).not.toBe(pid);
  });
});
