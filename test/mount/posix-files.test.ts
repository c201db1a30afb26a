import {afterAll, afterEach, beforeAll, expect, test} from 'vitest';
import {TestNode} from '../support/node.ts';
import {python} from './posix-support.ts';

let node: TestNode;
beforeAll(async () => {
  node = await TestNode.start({role: 'primary'});
});
afterEach(() => expect(node.log).not.toContain('daemon died'));
afterAll(async () => await node?.destroy());

test('O_EXCL, O_TRUNC, O_APPEND and O_NOFOLLOW mean what they say', async () => {
  await python(
    node,
    `
put('flags', b'one')
fails('EEXIST', os.open, 'flags', os.O_CREAT | os.O_EXCL | os.O_RDWR)
fd = os.open('flags', os.O_WRONLY | os.O_APPEND)
other = os.open('flags', os.O_WRONLY | os.O_APPEND)
os.write(fd, b'-two'); os.write(other, b'-three'); os.write(fd, b'-four')
assert get('flags') == b'one-two-three-four'
os.close(os.open('flags', os.O_WRONLY | os.O_TRUNC))
assert os.stat('flags').st_size == 0 and get('flags') == b''
fails('EBADF', os.write, os.open('flags', os.O_RDONLY), b'x')
os.symlink('flags', 'flags-link')
fails('ELOOP', os.open, 'flags-link', os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
fails('ENOENT', os.open, 'none', os.O_RDWR)
fails('EISDIR', os.open, '.', os.O_RDWR)
fails('ENOTDIR', os.open, 'flags/x', os.O_RDWR | os.O_CREAT)
`,
  );
});

test('files are cut and grown to any size', async () => {
  await python(
    node,
    `
put('cut', bytes(range(256)) * 100)
for size in (25599, 4097, 4096, 3, 0, 1, 4095, 1 << 20, (1 << 40) + 7, 10):
    os.truncate('cut', size)
    assert os.stat('cut').st_size == size, size
assert get('cut') == bytes(10)
fd = os.open('cut', os.O_RDWR)
os.pwrite(fd, b'end', (1 << 33) + 5)
assert os.fstat(fd).st_size == (1 << 33) + 8 and os.pread(fd, 9, 1 << 33) == bytes(5) + b'end'
os.ftruncate(fd, 2)
assert os.pread(fd, 10, 0) == bytes(2)
`,
  );
});

test('offsets and sizes that no file can have are refused, and the daemon lives', async () => {
  await python(
    node,
    `
put('huge', b'here')
fd = os.open('huge', os.O_RDWR)
for size in (1 << 50, (1 << 53) - 1, 1 << 53, (1 << 62) + 1, (1 << 63) - 1):
    try: os.ftruncate(fd, size)
    except OSError as e: assert e.errno in (errno.EFBIG, errno.EINVAL), e
    try: os.pwrite(fd, b'x', size)
    except OSError as e: assert e.errno in (errno.EFBIG, errno.EINVAL), e
    try: os.posix_fallocate(fd, size, 1)
    except OSError as e: assert e.errno in (errno.EFBIG, errno.EINVAL, errno.ENOSPC), e
    try: assert os.pread(fd, 10, size) == b''
    except OSError as e: assert e.errno in (errno.EINVAL, errno.EFBIG), e
os.ftruncate(fd, 4)
assert get('huge') == b'here'
`,
  );
});

test('fallocate grows a file, keeps its size, and punches holes', async () => {
  await python(
    node,
    `
def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0: raise OSError(ctypes.get_errno(), '')
put('alloc', b'a' * 16384)
fd = os.open('alloc', os.O_RDWR)
fallocate(fd, 0, 0, 65536)
assert os.fstat(fd).st_size == 65536 and os.fstat(fd).st_blocks >= 128
fallocate(fd, 1, 0, 1 << 20)
assert os.fstat(fd).st_size == 65536 and os.fstat(fd).st_blocks >= 2048
fallocate(fd, 3, 4096, 4096)
assert os.pread(fd, 16384, 0) == b'a' * 4096 + bytes(4096) + b'a' * 8192
fails('EINVAL', fallocate, fd, 0, 0, 0)
`,
  );
});

test('a file mapped by two processes is one file, also for read and write', async () => {
  await python(
    node,
    `
put('map', bytes(8192))
fd = os.open('map', os.O_RDWR)
mine = mmap.mmap(fd, 8192)
if os.fork() == 0:
    other = mmap.mmap(os.open('map', os.O_RDWR), 8192)
    while other[0] != 1: time.sleep(0.001)
    other[4096:4100] = b'back'
    os._exit(0)
mine[0] = 1
os.wait()
assert mine[4096:4100] == b'back'
mine[10:13] = b'abc'
mine.flush()
assert os.pread(fd, 3, 10) == b'abc'
os.pwrite(fd, b'xyz', 5000)
assert mine[5000:5003] == b'xyz'
`,
  );
  const {readFileSync} = await import('node:fs');
  expect(readFileSync(node.backing('map')).subarray(10, 13).toString()).toBe('abc');
});

test('an unlinked file works on until it is closed: read, write, stat, truncate, mmap, chmod, utimes', async () => {
  await python(
    node,
    `
put('gone', b'0123456789')
fd = os.open('gone', os.O_RDWR)
ino = os.fstat(fd).st_ino
map = mmap.mmap(fd, 10)
os.unlink('gone')
fails('ENOENT', os.stat, 'gone')
assert os.fstat(fd).st_nlink == 0 and os.fstat(fd).st_ino == ino and os.fstat(fd).st_size == 10
map[0:1] = b'm'; map.flush()
assert os.pread(fd, 3, 0) == b'm12'
os.pwrite(fd, b'W' * 9000, 10)
assert os.fstat(fd).st_size == 9010
os.fchmod(fd, 0o600); os.utime(fd, (1, 2)); os.fsync(fd); os.ftruncate(fd, 5)
s = os.fstat(fd)
assert (stat.S_IMODE(s.st_mode), s.st_mtime, s.st_size) == (0o600, s.st_mtime, 5)
put('gone', b'new')
assert os.stat('gone').st_ino != ino and os.pread(fd, 9, 0) == b'm1234' and get('gone') == b'new'
`,
  );
});

test('an unlinked file is gone from the disk after its last close', async () => {
  await python(
    node,
    `
put('last', b'x' * 100)
fd = os.open('last', os.O_RDWR)
os.unlink('last')
assert len(os.listdir(sys.argv[2])) >= 1
os.close(fd)
end = time.time() + 20
while os.listdir(sys.argv[2]) and time.time() < end: time.sleep(0.01)
assert os.listdir(sys.argv[2]) == []
`,
    `${node.data}/hidden`,
  );
});

test('mapped pages of an unlinked file are still written back', async () => {
  await python(
    node,
    `
put('map-gone', bytes(65536))
fd = os.open('map-gone', os.O_RDWR)
map = mmap.mmap(fd, 65536)
os.close(fd)
os.unlink('map-gone')
for i in range(0, 65536, 4096): map[i] = 7
map.flush()
fd2 = os.open(f'/proc/self/map_files/{[l.split()[0] for l in open("/proc/self/maps") if "map-gone" in l][0]}', os.O_RDWR)
assert os.pread(fd2, 1, 61440) == b'\\x07'
`,
  );
});

test('chmod, chown and utimes take effect, to the nanosecond', async () => {
  await python(
    node,
    `
put('meta')
fd = os.open('meta', os.O_RDWR)
for mode in (0o000, 0o600, 0o644, 0o4755, 0o777):
    os.chmod('meta', mode)
    assert stat.S_IMODE(os.stat('meta').st_mode) == mode
os.fchmod(fd, 0o640)
os.chown('meta', 12345, 54321)
os.chown('meta', -1, 7)
s = os.stat('meta')
assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (12345, 7, 0o640)
os.utime('meta', ns=(1_000_000_000_123_456_789, 1_500_000_000_987_654_321))
s = os.stat('meta')
assert (s.st_atime_ns, s.st_mtime_ns) == (1_000_000_000_123_456_789, 1_500_000_000_987_654_321)
os.utime('meta', ns=(-1_500_000_000, -1))
s = os.stat('meta')
assert (s.st_atime_ns, s.st_mtime_ns) == (-1_500_000_000, -1)
before = time.time_ns() - 1_000_000_000
os.utime('meta')
assert os.stat('meta').st_mtime_ns > before
os.utime('meta', (5, 5)); time.sleep(0.02); os.pwrite(fd, b'y', 0)
assert os.stat('meta').st_mtime_ns > before, 'a write sets mtime'
os.symlink('meta', 'meta-link')
os.chown('meta-link', 1, 2, follow_symlinks=False)
os.utime('meta-link', (9, 9), follow_symlinks=False)
assert os.lstat('meta-link').st_uid == 1 and os.lstat('meta-link').st_mtime == 9 and os.stat('meta').st_uid == 12345
`,
  );
});

test('hard links share one inode, and each name lives by itself', async () => {
  await python(
    node,
    `
put('link-a', b'shared')
os.link('link-a', 'link-b')
os.mkdir('link-folder')
os.link('link-b', 'link-folder/c')
ino = os.stat('link-a').st_ino
assert all(os.stat(n).st_ino == ino and os.stat(n).st_nlink == 3 for n in ('link-a', 'link-b', 'link-folder/c'))
fails('EEXIST', os.link, 'link-a', 'link-b')
fails('EPERM', os.link, 'link-folder', 'link-d')
fd = os.open('link-a', os.O_RDWR)
os.unlink('link-a')
assert os.fstat(fd).st_nlink == 2 and os.pread(fd, 6, 0) == b'shared'
os.pwrite(fd, b'SHARED', 0)
assert get('link-b') == b'SHARED' == get('link-folder/c')
os.rename('link-b', 'link-e')
put('other', b'o')
os.rename('other', 'link-folder/c')
assert os.stat('link-e').st_nlink == 1 and get('link-e') == b'SHARED' and get('link-folder/c') == b'o'
os.unlink('link-e')
assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 6, 0) == b'SHARED'
`,
  );
});

test('a file that is unlinked in the mount but linked from outside it works on', async () => {
  await python(
    node,
    `
put('outside', b'kept')
fd = os.open('outside', os.O_RDWR)
os.link(sys.argv[2] + '/files/outside', sys.argv[2] + '/lost/copy')
os.unlink('outside')
assert os.pread(fd, 4, 0) == b'kept' and os.fstat(fd).st_size == 4
fails('ENOENT', os.stat, 'outside')
`,
    node.data,
  );
});

test('symbolic links: relative, absolute, broken, long, looping', async () => {
  await python(
    node,
    `
put('target', b't')
for i, to in enumerate(('target', os.path.abspath('target'), 'none', 'x' * 4000, 'ring2')):
    os.symlink(to, f'ring{i}' if i else 'sym')
    assert os.readlink(f'ring{i}' if i else 'sym') == to
assert get('sym') == b't' == get('ring1')
fails('ENOENT', os.stat, 'ring2')
assert stat.S_ISLNK(os.lstat('ring2').st_mode) and os.lstat('ring3').st_size == 4000
os.symlink('loop-b', 'loop-a'); os.symlink('loop-a', 'loop-b')
fails('ELOOP', os.open, 'loop-a', os.O_RDONLY)
fails('EEXIST', os.symlink, 'x', 'sym')
fails('EINVAL', os.readlink, 'target')
os.unlink('sym')
assert get('target') == b't'
`,
  );
});

test('pipes and sockets work between processes', async () => {
  await python(
    node,
    `
import socket
os.mkfifo('pipe', 0o600)
if os.fork() == 0:
    put('pipe', b'through')
    os._exit(0)
assert get('pipe') == b'through'
os.wait()
s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect('sock')
s.accept()[0].send(b'hi')
assert c.recv(2) == b'hi' and stat.S_ISSOCK(os.stat('sock').st_mode)
`,
  );
});

test('statfs tells of the disk below, and fsync of files and folders succeeds', async () => {
  await python(
    node,
    `
mine, below = os.statvfs('.'), os.statvfs(sys.argv[2])
assert (mine.f_frsize, mine.f_blocks, mine.f_files, mine.f_namemax) == (below.f_frsize, below.f_blocks, below.f_files, 255)
assert abs(mine.f_bavail - below.f_bavail) < below.f_blocks / 10
fd = os.open('synced', os.O_RDWR | os.O_CREAT)
os.write(fd, b'x'); os.fsync(fd); os.fdatasync(fd)
folder = os.open('.', os.O_RDONLY)
os.fsync(folder); os.fdatasync(folder)
os.close(folder)
`,
    node.data,
  );
});

test('locks: fcntl and flock keep other processes out', async () => {
  await python(
    node,
    `
put('locked')
fd = os.open('locked', os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
if os.fork() == 0:
    other = os.open('locked', os.O_RDWR)
    fails('EAGAIN', fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 50)
    fcntl.flock(other, fcntl.LOCK_EX)
    os._exit(0)
assert os.wait()[1] == 0
`,
  );
});

test('what is written through the mount is what the disk holds, for random writes, cuts and maps', async () => {
  await python(
    node,
    `
import random
random.seed(20240501)
model = bytearray()
fd = os.open('random', os.O_RDWR | os.O_CREAT)
for step in range(1500):
    kind = random.random()
    offset, size = random.randrange(300_000), random.choice((1, 12, 41, 4096, 4120, 70_000))
    if kind < 0.6:
        data = random.randbytes(size)
        assert os.pwrite(fd, data, offset) == size
        if len(model) < offset: model.extend(bytes(offset - len(model)))
        model[offset:offset + size] = data
    elif kind < 0.7:
        os.ftruncate(fd, offset)
        model = model[:offset] + bytes(max(0, offset - len(model)))
    else:
        assert os.pread(fd, size, offset) == bytes(model[offset:offset + size]), step
assert get('random') == model and get(sys.argv[2] + '/files/random') == model
`,
    node.data,
  );
});
