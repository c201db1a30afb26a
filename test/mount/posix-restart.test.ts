import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, beforeEach, expect, test} from 'vitest';
import {TestNode, until} from '../support/node.ts';
import {python, shell} from './posix-support.ts';

let node: TestNode;
beforeEach(async () => {
  node = await TestNode.start({role: 'primary'});
});
afterEach(async () => await node?.destroy());

/** Kills the daemon `count` times while `work` goes on; each time it waits until another serves. */
async function underKills(work: Promise<unknown>, count: number): Promise<void> {
  let isDone = false;
  const done = work.finally(() => {
    isDone = true;
  });
  done.catch(() => undefined);
  for (let i = 0; i < count && !isDone; i++) {
    await sleep(150 + 53 * (i % 5));
    const readyCount = timesReady();
    await node.killDaemon();
    await until(
      () => timesReady() > readyCount,
      20_000,
      () => node.log,
    );
  }
  await shell(node, 'touch stop');
  await done;
  expect(node.log.split('signal=SIGKILL').length - 1).toBe(count);
}

function timesReady(): number {
  return node.log.split('msg="ready"').length;
}

/** Goes on with `body` until the file `stop` is there. Each step fails by an exception. */
const untilStopped = (body: string) => `
n = 0
while not os.path.exists('stop'):
    n += 1
${body.replaceAll(/^/gm, '    ')}
assert n > 3, n
`;

test('names made, changed and taken away while the daemon is killed: nothing fails, nothing is done twice', async () => {
  await underKills(
    python(
      node,
      untilStopped(`
fd = os.open(f'f{n}', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640
os.write(fd, b'%d' % n); os.close(fd)
put('over', b'old')
os.rename(f'f{n}', 'over')
assert get('over') == b'%d' % n
fails('ENOENT', os.stat, f'f{n}')
os.link('over', 'hard'); assert os.stat('hard').st_nlink == 2
os.symlink('over', 'soft'); assert os.readlink('soft') == 'over'
os.mkdir('dir', 0o750); assert stat.S_IMODE(os.stat('dir').st_mode) == 0o750
os.rename('dir', 'dir2'); put('dir2/in', b'x'); os.unlink('dir2/in'); os.rmdir('dir2')
os.unlink('hard'); os.unlink('soft'); os.unlink('over')
assert set(os.listdir('.')) <= {'stop'}, os.listdir('.')
`),
    ),
    6,
  );
});

test('files open across kills: written, cut, mapped, unlinked, with their content and their number', async () => {
  await underKills(
    python(
      node,
      `
put('open', b''); put('unlinked', b''); put('replaced', b'R'); put('deep', b''); os.mkdir('d')
os.rename('deep', 'd/deep')
fds = {name: os.open(name, os.O_RDWR) for name in ('open', 'unlinked', 'replaced', 'd/deep')}
inos = {name: os.fstat(fd).st_ino for name, fd in fds.items()}
os.unlink('unlinked'); put('new', b'N'); os.rename('new', 'replaced'); os.rename('d', 'e')
models = {name: bytearray(os.pread(fd, 100, 0)) for name, fd in fds.items()}
os.ftruncate(fds['open'], 4096)
models['open'] = bytearray(4096)
map = mmap.mmap(fds['open'], 4096)
` +
        untilStopped(`
for name, fd in fds.items():
    data = b'%08d' % n
    at = (n * 8) % 40_000
    os.pwrite(fd, data, at)
    if len(models[name]) < at: models[name].extend(bytes(at - len(models[name])))
    models[name][at:at + 8] = data
    if n % 50 == 0 and name != 'open':
        os.ftruncate(fd, n % 777); models[name] = models[name][:n % 777].ljust(n % 777, b'\\0')
    assert os.pread(fd, 1 << 17, 0) == models[name], name
    s = os.fstat(fd)
    assert (s.st_ino, s.st_size) == (inos[name], len(models[name]))
map[n % 4096] = n % 256; models['open'][n % 4096] = n % 256
if n % 20 == 0: map.flush(); os.fsync(fds['unlinked'])
`) +
        `
assert os.fstat(fds['unlinked']).st_nlink == 0 == os.fstat(fds['replaced']).st_nlink and get('replaced') == b'N'
assert get('e/deep') == models['d/deep'] and get('open') == models['open']
for fd in fds.values(): os.close(fd)
`,
    ),
    6,
  );
});

test('a folder read across kills: every file once', async () => {
  await python(
    node,
    `
os.mkdir('many')
for i in range(4000): os.close(os.open(f'many/{i}', os.O_CREAT | os.O_WRONLY))
`,
  );
  await underKills(
    python(
      node,
      untilStopped(`
seen = []
for i, entry in enumerate(os.scandir('many')):
    seen.append(entry.name)
    if i % 1000 == 0: time.sleep(0.03)
assert len(seen) == 4000 and len(set(seen)) == 4000
`),
    ),
    4,
  );
});

test('who stands in a folder goes on there after a kill, also after it was renamed', async () => {
  await underKills(
    python(
      node,
      `
os.makedirs('a/b'); root = os.getcwd()
os.chdir('a/b')
os.rename(root + '/a', root + '/c')
n = 0
while not os.path.exists(root + '/stop'):
    n += 1
    put(f'f{n}', b'%d' % n)
    assert get(root + f'/c/b/f{n}') == b'%d' % n and os.getcwd() == root + '/c/b'
    os.unlink(f'f{n}')
assert os.listdir('.') == []
`,
    ),
    3,
  );
});
