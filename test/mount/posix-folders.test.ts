import {afterAll, afterEach, beforeAll, expect, test} from 'vitest';
import {TestNode} from '../support/node.ts';
import {python, shell} from './posix-support.ts';

let node: TestNode;
beforeAll(async () => {
  node = await TestNode.start({role: 'primary'});
});
afterEach(() => expect(node.log).not.toContain('daemon died'));
afterAll(async () => await node?.destroy());

test('mkdir and rmdir, and what they refuse', async () => {
  await python(
    node,
    `
os.umask(0o022)
os.mkdir('d', 0o755)
assert stat.S_IMODE(os.stat('d').st_mode) == 0o755
fails('EEXIST', os.mkdir, 'd')
put('d/file')
fails('ENOTEMPTY', os.rmdir, 'd')
fails('ENOTDIR', os.rmdir, 'd/file')
fails('EISDIR', os.unlink, 'd')
fails('ENOENT', os.rmdir, 'none')
os.mkdir('d/sub'); os.chmod('d', 0o2775); os.mkdir('d/sub2')
assert os.stat('d/sub2').st_mode & 0o2000, 'set-group-ID is handed on'
os.unlink('d/file'); os.rmdir('d/sub'); os.rmdir('d/sub2'); os.rmdir('d')
fails('ENOENT', os.stat, 'd')
`,
  );
});

test('rename: to a new name, over a file, between folders, of a folder, and what it refuses', async () => {
  await python(
    node,
    `
put('a', b'A'); put('b', b'B'); os.mkdir('into'); os.mkdir('empty'); os.mkdir('full'); put('full/x')
ino, replaced = os.stat('a').st_ino, os.open('b', os.O_RDWR)
os.rename('a', 'b')
assert os.stat('b').st_ino == ino and get('b') == b'A'
fails('ENOENT', os.stat, 'a')
assert os.pread(replaced, 1, 0) == b'B' and os.fstat(replaced).st_nlink == 0, 'the replaced file is still open'
os.pwrite(replaced, b'more', 1)
assert os.pread(replaced, 9, 0) == b'Bmore'
os.rename('b', 'into/c')
assert os.stat('into/c').st_ino == ino
os.rename('into', 'moved')
assert get('moved/c') == b'A' and os.stat('moved/c').st_ino == ino
fails('ENOENT', os.stat, 'into/c')
os.rename('moved', 'empty')
assert get('empty/c') == b'A'
fails('ENOTEMPTY', os.rename, 'empty', 'full')
fails('EINVAL', os.rename, 'full', 'full/inside')
fails('EISDIR', os.rename, 'full/x', 'empty')
fails('ENOTDIR', os.rename, 'empty', 'full/x')
fails('ENOENT', os.rename, 'none', 'x')
assert get('empty/c') == b'A' and get('full/x') == b'x'
os.rename('full/x', 'full/x')
`,
  );
  expect((await shell(node, 'mv -n full/x empty/c; ls full')).out).toContain('x'); // RENAME_NOREPLACE
});

test('a failed rename over an open file leaves that file alone', async () => {
  await python(
    node,
    `
put('stay', b'S'); os.mkdir('long')
fd = os.open('stay', os.O_RDWR)
fails('ENOTDIR', os.rename, 'long', 'stay')
assert get('stay') == b'S' and os.fstat(fd).st_nlink == 1
os.close(fd); os.unlink('stay')
`,
  );
});

test('RENAME_NOREPLACE and RENAME_EXCHANGE', async () => {
  await python(
    node,
    `
put('n1', b'1'); put('n2', b'2')
libc_fails('EEXIST', libc.renameat2(-100, b'n1', -100, b'n2', 1))
libc_fails('EINVAL', libc.renameat2(-100, b'n1', -100, b'n2', 2))
assert libc.renameat2(-100, b'n1', -100, b'n3', 1) == 0 and get('n3') == b'1' and get('n2') == b'2'
`,
  );
});

test('a removed folder is dead for who stands in it, and a new one is not mistaken for it', async () => {
  await python(
    node,
    `
for round in range(20):
    os.mkdir('old')
    old = os.open('old', os.O_RDONLY)
    os.rmdir('old')
    os.mkdir('new')
    put('new/file', b'works')
    assert get('new/file') == b'works' and os.listdir('new') == ['file']
    assert os.listdir(old) == [] and os.fstat(old).st_ino != os.stat('new').st_ino
    fails('ENOENT', os.open, 'x', os.O_CREAT | os.O_RDWR, dir_fd=old)
    os.unlink('new/file'); os.rmdir('new'); os.close(old)
os.mkdir('over'); os.mkdir('under')
under = os.open('under', os.O_RDONLY)
os.rename('over', 'under')
put('under/file')
assert os.listdir(under) == [] and os.listdir('under') == ['file']
os.fstat(under); os.close(under)
shutil.rmtree('under')
`,
  );
});

test('10,000 files: listed once each, read by two at a time, removed', async () => {
  await python(
    node,
    `
os.mkdir('many')
names = {f'file-{i:05}' for i in range(10_000)}
for name in names: os.close(os.open(f'many/{name}', os.O_CREAT | os.O_WRONLY))
listed = os.listdir('many')
assert len(listed) == 10_000 and set(listed) == names
os.mkdir('few')
for i in range(3000): put(f'few/{i}')
seen = [[], []]
for one, two in zip(os.scandir('many'), os.scandir('few')):
    assert one.inode() == one.stat().st_ino and one.is_file()
    seen[0].append(one.name); seen[1].append(two.name)
assert len(set(seen[0])) == 3000 and len(set(seen[1])) == 3000
assert {e.name for e in os.scandir('many')} == names
`,
  );
  expect(await shell(node, 'find many -type f | wc -l')).toEqual({code: 0, out: '10000'});
  expect(await shell(node, 'rm -rf many few && ls')).toMatchObject({code: 0});
  await python(node, `fails('ENOENT', os.stat, 'many')`);
});

test('readdir while entries come and go: whatever stays is seen exactly once', async () => {
  await python(
    node,
    `
os.mkdir('moving')
for i in range(3000): put(f'moving/stay-{i}')
for i in range(1000): put(f'moving/go-{i}')
seen = []
for n, entry in enumerate(os.scandir('moving')):
    seen.append(entry.name)
    if n % 3 == 0 and n // 3 < 1000: os.unlink(f'moving/go-{n // 3}'); put(f'moving/come-{n}')
stayed = [name for name in seen if name.startswith('stay')]
assert len(stayed) == 3000 and len(set(seen)) == len(seen)
shutil.rmtree('moving')
`,
  );
});

test('. and .. are listed with their numbers, file types too', async () => {
  await python(
    node,
    `
os.mkdir('types'); os.mkdir('types/folder'); put('types/file'); os.symlink('x', 'types/link'); os.mkfifo('types/pipe')
kinds = {e.name: (e.is_dir(follow_symlinks=False), e.is_symlink(), e.is_file(follow_symlinks=False)) for e in os.scandir('types')}
assert kinds == {'folder': (True, False, False), 'file': (False, False, True), 'link': (False, True, False), 'pipe': (False, False, False)}
assert os.stat('types/..').st_ino == os.stat('.').st_ino == 1
`,
  );
  const {out} = await shell(node, 'ls -aif types | sort -k2 && stat -c %i types');
  const own = out.split('\n').at(-1);
  expect(out).toMatch(new RegExp(`^\\s*${own} \\.$`, 'm'));
  expect(out).toMatch(/^\s*1 \.\.$/m);
});

test('a tree of real files: copied with everything, moved, compared, archived, removed', async () => {
  const {code, out} = await shell(
    node,
    [
      'mkdir src && cp -a /etc/init.d /etc/ssl src/ 2>/dev/null; cp -a /usr/share/doc/tar src/ 2>/dev/null',
      'ln -s init.d src/link && touch -d 2001-02-03 src/init.d && cp -a src copy && diff -r --no-dereference src copy',
      'test "$(stat -c %Y copy/init.d)" = "$(stat -c %Y src/init.d)"',
      'tar cf all.tar src && mkdir out && tar xf all.tar -C out && diff -r --no-dereference src out/src',
      'mv out/src out/moved && diff -r --no-dereference src out/moved && rm -rf src copy out all.tar && test ! -e src',
    ].join(' && '),
  );
  expect([code, out]).toEqual([0, '']);
});
