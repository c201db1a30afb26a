import {afterEach, expect, test} from 'vitest';
import {position, python, shell} from '../replication/support.ts';
import {TestNode} from '../support/node.ts';

let node: TestNode | undefined;
afterEach(async () => await node?.destroy());

const COMMITS = 1500;

test('a -wal that others look at all the time while it grows loses nothing, also over a restart of the daemon', async () => {
  const started = await TestNode.start({role: 'primary'});
  node = started;
  const path = started.path('a.db');
  await shell(path, 'pragma journal_mode=wal; create table t(id integer primary key, x)');
  const looking = [1, 2].map(() =>
    python(
      `
end = time.time() + 60
while time.time() < end and not os.path.exists(sys.argv[2]):
    try: os.stat(sys.argv[1]); os.stat(sys.argv[1] + 'x')
    except FileNotFoundError: pass
`,
      [`${path}-wal`, `${started.directory}/over`],
    ),
  );
  const writing = python(
    `
c = connect(sys.argv[1])
for i in range(int(sys.argv[2])):
    c.execute('insert into t(x) values(randomblob(?))', (100 + i % 900,))
print(c.execute('pragma integrity_check').fetchone()[0], c.execute('select count(*) from t').fetchone()[0])
`,
    [path, String(COMMITS)],
  );
  await new Promise(resolve => setTimeout(resolve, 700));
  await started.killDaemon();
  expect(await writing).toBe(`ok ${COMMITS}`);
  await python("open(sys.argv[1], 'w')", [`${started.directory}/over`]);
  await Promise.all(looking);
  expect((await position(started, 'a.db')).slice(0, 16)).toBe((COMMITS + 2).toString(16).padStart(16, '0'));
});
