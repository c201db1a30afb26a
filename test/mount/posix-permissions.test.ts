import {chmodSync} from 'node:fs';
import {afterAll, beforeAll, expect, test} from 'vitest';
import {TestNode} from '../support/node.ts';
import {asUser, python, shell, sqlite} from './posix-support.ts';

let node: TestNode;
beforeAll(async () => {
  node = await TestNode.start({role: 'primary', set: {'fuse.allow-other': 'true'}});
  chmodSync(node.directory, 0o755);
  expect(
    (
      await shell(
        node,
        'chmod 755 . && mkdir -m 777 open && mkdir -m 700 closed && echo root > root-only && chmod 600 root-only',
      )
    ).code,
  ).toBe(0);
});
afterAll(async () => await node?.destroy());

test('what a user may not do is refused', async () => {
  for (const command of [
    'cat root-only',
    'echo x > root-only',
    'echo x > new-in-root',
    'mkdir new-folder',
    'rm -f root-only',
    'mv root-only open/stolen',
    'ls closed',
    'touch closed/x',
    'chmod 777 root-only',
    'chown 12345 root-only',
    'truncate -s 0 root-only',
    'ln -s x link-in-root',
    'rmdir open',
  ]) {
    const {code, out} = await asUser(node, command);
    expect([command, code === 0, /Permission denied|not permitted/.test(out)]).toEqual([
      command,
      false,
      true,
    ]);
  }
  expect((await shell(node, 'cat root-only')).out).toBe('root');
});

test("what a user makes is the user's, with the mode asked for and the umask applied once", async () => {
  const made = await asUser(
    node,
    'cd open && umask 027 && echo x > file && mkdir folder && mkfifo pipe && ln -s file link && ln file hard && stat -c "%n %u %g %a" file folder pipe link',
  );
  expect(made.out.split('\n')).toEqual([
    'file 12345 12345 640',
    'folder 12345 12345 750',
    'pipe 12345 12345 640',
    'link 12345 12345 777',
  ]);
  const {out} = await asUser(
    node,
    'cd open && umask 0 && python3 -c "import os; os.open(\'exact\', os.O_CREAT | os.O_EXCL, 0o666)" && stat -c %a exact',
  );
  expect(out).toBe('666');
  expect((await asUser(node, 'cat open/file', 999)).code).not.toBe(0);
  expect((await asUser(node, 'cd open && chmod 604 file')).code).toBe(0);
  expect((await asUser(node, 'cat open/file', 999)).out).toBe('x');
});

test("a folder's sticky and set-group-ID bits hold", async () => {
  expect(
    (
      await shell(
        node,
        'mkdir sticky && chmod 1777 sticky && mkdir group && chgrp 777 group && chmod 2777 group',
      )
    ).code,
  ).toBe(0);
  expect((await asUser(node, 'touch sticky/mine')).code).toBe(0);
  expect((await asUser(node, 'rm -f sticky/mine', 999)).out).toContain('not permitted');
  expect((await asUser(node, 'cd group && touch f && mkdir d && stat -c %g f d')).out).toBe('777\n777');
});

test("SQLite as a user: the journal, WAL and shm belong to the database's owner, and nobody else writes", async () => {
  expect((await asUser(node, 'mkdir -m 755 open/own')).code).toBe(0);
  const script =
    'cd open/own && sqlite3 own.db "PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES (1);"';
  expect(await asUser(node, script)).toEqual({code: 0, out: 'wal'});
  await python(
    node,
    `
import sqlite3
db = sqlite3.connect('open/own/own.db')
db.execute('INSERT INTO t VALUES (2)'); db.commit()
for suffix in ('', '-wal', '-shm'):
    s = os.stat('open/own/own.db' + suffix)
    assert (s.st_uid, stat.S_IMODE(s.st_mode)) == (12345, 0o644), suffix
`,
  );
  expect((await asUser(node, 'sqlite3 open/own/own.db "INSERT INTO t VALUES (3)"', 999)).out).toMatch(
    /readonly|unable to open/,
  );
  expect(
    (await asUser(node, 'sqlite3 open/own/own.db "INSERT INTO t VALUES (3); SELECT count(*) FROM t"')).out,
  ).toBe('3');
  expect(await sqlite(node, 'open/own/own.db', 'PRAGMA integrity_check;')).toBe('ok');
});
