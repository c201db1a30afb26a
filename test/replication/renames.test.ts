import {existsSync, renameSync} from 'node:fs';
import {appendFile, readdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {afterEach, expect, test} from 'vitest';
import {expectLogEqualsDatabase} from '../support/log-oracle.ts';
import {TestNode, until} from '../support/node.ts';
import {digest, expectEqual, python, shell} from './support.ts';

const LIMIT_MS = 60_000;
const nodes: TestNode[] = [];

afterEach(async () => {
  for (const node of nodes.splice(0).reverse()) await node.destroy();
});

async function start(env: Readonly<Record<string, string>> = {}) {
  const primary = await TestNode.start({role: 'primary'});
  nodes.push(primary);
  const follower = await TestNode.start({role: 'follower', primary, env});
  nodes.push(follower);
  return {primary, follower};
}

/** A transaction that fills the database file, and one that is in the WAL only. */
const FILL = `
c = connect(sys.argv[1])
c.execute('pragma journal_mode=wal')
c.execute('create table t(x)')
for i in range(20): c.execute('insert into t values(randomblob(3000))')
c.execute('pragma wal_checkpoint(truncate)')
for i in range(20): c.execute('update t set x=randomblob(3000) where rowid=?', (i + 1,))
`;

// Between the files, before the intent is written, and when all is done but the note of it.
test.each(['follow:rename#2', 'catalog:append#2', 'catalog:append#3'])(
  'a follower that dies in a rename, at %s, has the whole database under the new name',
  async crashAt => {
    const {primary, follower} = await start({FERRITE_CRASH_AT: crashAt});
    await python(FILL, [primary.path('old.db')]);
    await expectEqual(primary, follower, ['old.db']);
    const before = await digest(primary.path('old.db'));
    renameSync(primary.path('old.db'), primary.path('new.db'));
    await until(
      () => follower.log.includes('daemon died'),
      LIMIT_MS,
      () => 'it did not die',
    );
    await expectEqual(primary, follower, ['new.db']);
    expect(await digest(follower.path('new.db'))).toBe(before);
    for (const suffix of ['', '-wal', '-shm', '-journal'])
      expect(existsSync(follower.backing(`old.db${suffix}`)), suffix).toBe(false);
    await writeFile(follower.path('old.db'), 'the name is free');
    await shell(primary.path('new.db'), 'insert into t values(1)');
    await expectEqual(primary, follower, ['new.db']);
  },
);

test('a primary finishes the rename that it died in as a follower', async () => {
  const primary = await TestNode.start({role: 'primary'});
  nodes.push(primary);
  const before = await python(
    `${FILL}
print('ok', hashlib.sha256(c.serialize()).hexdigest(), flush=True)
os._exit(0) # The WAL stays as it is.
`,
    [primary.path('old.db')],
  );
  await primary.killAll();
  const {id} = JSON.parse((await readFile(join(primary.data, 'catalog'), 'utf8')).split('\n')[0] ?? '');
  await appendFile(
    join(primary.data, 'catalog'),
    `${JSON.stringify({id, name: 'new.db', from: 'old.db'})}\n`,
  );
  renameSync(primary.backing('old.db-wal'), primary.backing('new.db-wal'));
  await primary.restart();
  expect(await digest(primary.path('new.db'))).toBe(before);
  expect(existsSync(primary.path('old.db'))).toBe(false);
  await expectLogEqualsDatabase(primary, 'new.db');
});

test("a local file that has a database's new name gets another one", async () => {
  const {primary, follower} = await start();
  await shell(primary.path('old.db'), 'create table t(x)');
  await expectEqual(primary, follower, ['old.db']);
  await writeFile(follower.path('new.db'), "a node's own");
  renameSync(primary.path('old.db'), primary.path('new.db'));
  await expectEqual(primary, follower, ['new.db']);
  const local = (await readdir(follower.mount)).find(name => name.startsWith('new.db.local-')) ?? '';
  expect(await readFile(follower.path(local), 'utf8')).toBe("a node's own");
});

test('an app on the follower that tries to write all the time never gets a commit while the database is renamed', async () => {
  const {primary, follower} = await start();
  await python(FILL, [primary.path('0.db')]);
  await expectEqual(primary, follower, ['0.db']);
  const flag = `${follower.directory}/end`;
  const writers = [1, 2].map(number =>
    python(
      `
c = connect(sys.argv[1], timeout=0)
c.execute('select count(*) from t').fetchone()
open(sys.argv[2] + sys.argv[3], 'w').close()
tries = 0
while not os.path.exists(sys.argv[2]):
    tries += 1
    try: c.execute('insert into t values(1)')
    except sqlite3.Error: continue
    sys.exit('it was let in, at try %d' % tries)
print(tries)
`,
      [follower.path('0.db'), flag, String(number)],
    ),
  );
  await until(
    () => existsSync(`${flag}1`) && existsSync(`${flag}2`),
    LIMIT_MS,
    () => 'the apps have not begun',
  );
  for (let count = 1; count <= 25; count++) {
    renameSync(primary.path(`${count - 1}.db`), primary.path(`${count}.db`));
    await until(
      () => existsSync(follower.backing(`${count}.db`)),
      LIMIT_MS,
      () => follower.log,
    );
  }
  await writeFile(flag, '');
  for (const tries of await Promise.all(writers)) expect(Number(tries)).toBeGreaterThan(0);
  await expectEqual(primary, follower, ['25.db']);
});
