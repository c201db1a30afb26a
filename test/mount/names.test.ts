import {readdirSync} from 'node:fs';
import {constants} from 'node:os';
import fc from 'fast-check';
import {afterAll, beforeAll, describe, expect, test} from 'vitest';
import {
  checkName,
  DATABASE_NAME_SIZE_MAX,
  fileRole,
  isDatabaseName,
  NAME_SIZE_MAX,
} from '../../src/engine/mount/names.ts';
import {TestNode} from '../support/node.ts';
import {python, shell, sqlite} from './posix-support.ts';

const {EILSEQ, EINVAL, ENAMETOOLONG} = constants.errno;

describe('checkName()', () => {
  test.each([
    ['', EINVAL],
    ['.', EINVAL],
    ['..', EINVAL],
    ['a/b', EINVAL],
    ['a\0b', EINVAL],
    ['x'.repeat(NAME_SIZE_MAX + 1), ENAMETOOLONG],
    ['ü'.repeat(128), ENAMETOOLONG],
    ['x'.repeat(NAME_SIZE_MAX), 0],
    ['...', 0],
    ['..x', 0],
    ['-', 0],
    ['a\nb', 0],
  ])('%j: %i', (name, errno) => expect(checkName(Buffer.from(name))).toBe(errno));

  test('refuses what is no UTF-8', () => {
    for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0x61, 0xe4]])
      expect(checkName(Buffer.from(bytes))).toBe(EILSEQ);
  });

  test('what it accepts is one component that text and bytes agree on', () => {
    fc.assert(
      fc.property(fc.uint8Array({maxLength: 300}), bytes => {
        const name = Buffer.from(bytes);
        if (checkName(name) !== 0) return;
        const text = name.toString('utf8');
        expect(Buffer.from(text)).toEqual(name);
        expect(text.split('/')).toHaveLength(1);
        expect(['', '.', '..']).not.toContain(text);
        expect(name.length).toBeLessThanOrEqual(NAME_SIZE_MAX);
      }),
      {numRuns: 2000},
    );
  });
});

describe('fileRole()', () => {
  test.each([
    ['app.db', 'main', 'app.db'],
    ['app.db-wal', 'wal', 'app.db'],
    ['app.db-shm', 'shm', 'app.db'],
    ['app.db-journal', 'journal', 'app.db'],
    ['app.db-mj0123459AB', 'super-journal', 'app.db'],
    ['app.db-mj0123458AB', 'main', 'app.db-mj0123458AB'],
    ['-wal', 'main', '-wal'],
    ['app.db-wal-wal', 'wal', 'app.db-wal'],
    ['app.db-pos', 'main', 'app.db-pos'],
  ])('%s is %s of %s', (name, role, base) => expect(fileRole(name)).toEqual({role, base}));

  test("the base of every name but a super-journal's is found again from its suffix", () => {
    fc.assert(
      fc.property(fc.string({minLength: 1}), fc.constantFrom('-wal', '-shm', '-journal'), (base, suffix) => {
        expect(fileRole(base + suffix)).toEqual({role: suffix.slice(1), base});
      }),
    );
  });
});

describe('isDatabaseName()', () => {
  test.each([
    '../x',
    'a/../b',
    '/x',
    'x/',
    'a//b',
    '.',
    '..',
    '',
    'a/.',
    'app.db-wal',
    'a\0',
    'x'.repeat(256),
    `${'d/'.repeat(DATABASE_NAME_SIZE_MAX / 2)}x`,
  ])('refuses %j', name => {
    expect(isDatabaseName(name)).toBe(false);
  });

  test.each(['app.db', 'tenants/a.sqlite', 'a/b/c/d', '.hidden', 'x y', 'ünïcode/数据.db'])(
    'accepts %j',
    name => {
      expect(isDatabaseName(name)).toBe(true);
    },
  );

  test('what it accepts stays below the folder it is joined to', () => {
    const component = fc.oneof(fc.constantFrom('..', '.', '', 'a', '-wal'), fc.string({maxLength: 5}));
    fc.assert(
      fc.property(fc.array(component, {maxLength: 6}), parts => {
        const name = parts.join('/');
        if (!isDatabaseName(name)) return;
        expect(
          new URL(`file:///base/${name.split('/').map(encodeURIComponent).join('/')}`).pathname.startsWith(
            '/base/',
          ),
        ).toBe(true);
      }),
    );
  });
});

describe('names in a mount', () => {
  let node: TestNode;
  beforeAll(async () => {
    node = await TestNode.start({role: 'primary'});
  });
  afterAll(async () => await node?.destroy());

  test('over-long and malformed names are refused by every call, the longest is not', async () => {
    await python(
      node,
      `
put('file'); os.mkdir('folder')
for bad, code in (('x' * 256, 'ENAMETOOLONG'), ('ü' * 128, 'ENAMETOOLONG'), (b'bad-\\xff', 'EILSEQ')):
    old = 'file' if isinstance(bad, str) else b'file'
    fails(code, os.open, bad, os.O_CREAT | os.O_RDWR)
    fails(code, os.mkdir, bad); fails(code, os.symlink, 'x' if old == 'file' else b'x', bad); fails(code, os.mkfifo, bad)
    fails(code, os.link, old, bad); fails(code, os.rename, old, bad); fails(code, os.stat, bad); fails(code, os.unlink, bad)
longest = 'y' * 255
put(longest, b'long'); os.rename(longest, 'z' * 255)
assert get('z' * 255) == b'long'
os.unlink('z' * 255)
for odd in ('a b', 'new\\nline', '-rf', '"quoted"', 'back\\\\slash', '...', '数据', '~', '*', ' '):
    put(odd, b'odd'); assert odd in os.listdir('.') and get(odd) == b'odd'; os.unlink(odd)
`,
    );
  });

  test('no path leads out of the data directory', async () => {
    await python(
      node,
      `
outside = os.path.dirname(sys.argv[1])
put(outside + '/secret', b's')
os.symlink(outside, 'out')
os.symlink('../../secret', 'relative')
assert get('out/secret') == b's', 'a link is followed by the kernel, as the caller'
fails('ENOENT', os.stat, 'relative')
os.truncate('out/secret', 1); os.unlink('out')
assert os.path.exists(outside + '/secret')
os.mkdir('cycle')
assert os.path.realpath('cycle/../..') == outside
fails('EXDEV', os.rename, 'cycle', outside + '/cycle'); fails('EXDEV', os.link, 'relative', outside + '/hard', follow_symlinks=False)
`,
    );
    expect(readdirSync(node.data).sort()).toContain('files');
  });

  test('paths deeper than PATH_MAX are refused, not fatal', async () => {
    await python(
      node,
      `
os.mkdir('deep'); os.chdir('deep')
refused = False
for depth in range(60):
    try: os.mkdir('n' * 200)
    except OSError as e:
        assert e.errno == errno.ENAMETOOLONG, e
        refused = True
        break
    os.chdir('n' * 200)
assert refused and os.listdir('.') == []
`,
    );
    expect((await shell(node, 'rm -rf deep')).code).toBe(0);
    expect(node.log).not.toContain('daemon died');
  });

  test('files with names that the mount refuses are left out of listings', async () => {
    await python(
      node,
      `
os.mkdir('listed'); put('listed/good')
open(os.fsencode(sys.argv[2]) + b'/files/listed/bad-\\xff', 'w').close()
assert os.listdir('listed') == ['good']
`,
      node.data,
    );
  });

  test('databases with odd names, in any folder', async () => {
    for (const name of [
      'über/数 据.db',
      '-dash.db',
      'no-extension',
      'x.db-mj',
      'deep/er/and/deeper/app.sqlite',
    ]) {
      await shell(node, `mkdir -p -- "$(dirname -- '${name}')"`);
      expect(
        await sqlite(node, name, 'CREATE TABLE t(x); INSERT INTO t VALUES (1),(2); SELECT count(*) FROM t;'),
      ).toBe('2');
      expect((await shell(node, `cat -- './${name}-pos'`)).out).toMatch(/^[0-9a-f]{15}[1-9]\/[0-9a-f]{16}$/);
    }
  });
});
