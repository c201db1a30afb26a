import {existsSync, mkdirSync, readdirSync, renameSync, rmSync} from 'node:fs';
import {join} from 'node:path';
import {afterEach, describe, expect, test} from 'vitest';
import {databaseId, expectLogEqualsDatabase, txidOf} from '../support/log-oracle.ts';
import {TestNode} from '../support/node.ts';
import {runCommand, runSqlite} from './apps.ts';

describe('files that are not where the catalog says', () => {
  let node: TestNode;

  afterEach(async () => {
    await node?.destroy();
  });

  async function make(name: string, mode = 'WAL'): Promise<string> {
    await runSqlite(
      node.path(name),
      `const db = new Database(path); db.pragma('journal_mode = ${mode}'); db.exec('CREATE TABLE t (a)'); db.exec('INSERT INTO t VALUES (randomblob(9000))'); db.close();`,
    );
    return databaseId(node.data, name) ?? 'none';
  }

  const rowCount = async (name: string) =>
    Number(
      await runSqlite(
        node.path(name),
        `const db = new Database(path); print(db.prepare('SELECT count(*) FROM t').pluck().get()); db.close();`,
      ),
    );

  for (const isReplacing of [false, true]) {
    test(`a daemon dies between a RENAME${isReplacing ? ' over another database' : ''} and its note of it: the database keeps its ID`, async () => {
      node = await TestNode.start({
        role: 'primary',
        env: {FERRITE_CRASH_AT: `catalog:append#${isReplacing ? 3 : 2}`},
      });
      const id = await make('a.db');
      const other = isReplacing ? await make('b.db') : undefined;
      await runCommand('mv', node.path('a.db'), node.path('b.db'));
      const moved = await expectLogEqualsDatabase(node, 'b.db');
      expect(moved.id).toBe(id);
      expect(databaseId(node.data, 'a.db')).toBeUndefined();
      expect(await rowCount('b.db')).toBe(1);
      if (other !== undefined) expect(existsSync(join(node.data, 'databases', other))).toBe(false);
      expect(node.log).toContain('died');
    });
  }

  test('a daemon dies between the RENAME of a folder and its note of it: the databases keep their IDs', async () => {
    node = await TestNode.start({role: 'primary', env: {FERRITE_CRASH_AT: 'catalog:append#3'}});
    await runCommand('mkdir', '-p', node.path('f/inner'));
    const ids = [await make('f/a.db'), await make('f/inner/b.db', 'DELETE')];
    await runCommand('mv', node.path('f'), node.path('g'));
    const found = [
      await expectLogEqualsDatabase(node, 'g/a.db'),
      await expectLogEqualsDatabase(node, 'g/inner/b.db'),
    ];
    expect(found.map(({id}) => id)).toEqual(ids);
  });

  test('a daemon dies between an UNLINK and its note of it, then one that has just made a log: a drop, and an orphan', async () => {
    node = await TestNode.start({role: 'primary', env: {FERRITE_CRASH_AT: 'catalog:append#2'}});
    const id = await make('a.db');
    await runCommand('rm', node.path('a.db'));
    expect(await txidOf(node, 'a.db')).toBe(0);
    expect(databaseId(node.data, 'a.db')).toBeUndefined();
    expect(readdirSync(join(node.data, 'databases'))).toEqual([]);
    expect(readdirSync(join(node.data, 'lost'))).toEqual([]);
    const again = await make('a.db');
    expect(again).not.toBe(id);
    expect((await expectLogEqualsDatabase(node, 'a.db')).id).toBe(again);
    expect(readdirSync(join(node.data, 'databases'))).toEqual([again]);
    expect(readdirSync(join(node.data, 'lost')).length).toBe(1);
    expect(node.log).toMatch(/log without a database kept aside/);
  });

  test('files that were deleted, renamed and replaced while nothing ran', async () => {
    node = await TestNode.start({role: 'primary'});
    const ids = new Map<string, string>();
    for (const name of ['kept.db', 'gone.db', 'old.db', 'over.db', 'under.db'])
      ids.set(name, await make(name));
    expect(await node.stop()).toBe(0);
    rmSync(node.backing('gone.db'));
    mkdirSync(node.backing('folder'));
    renameSync(node.backing('old.db'), node.backing('folder/new.db'));
    renameSync(node.backing('over.db'), node.backing('under.db'));
    await node.restart();
    expect(databaseId(node.data, 'gone.db')).toBeUndefined();
    expect(databaseId(node.data, 'over.db')).toBeUndefined();
    for (const [name, from] of [
      ['kept.db', 'kept.db'],
      ['folder/new.db', 'old.db'],
      ['under.db', 'over.db'],
    ]) {
      expect((await expectLogEqualsDatabase(node, name)).id).toBe(ids.get(from));
      expect(await rowCount(name)).toBe(1);
    }
    const lost = readdirSync(join(node.data, 'lost')).map(name => name.slice(0, 32));
    expect(lost.sort()).toEqual([ids.get('gone.db'), ids.get('under.db')].sort());
    expect(await node.stop()).toBe(0);
  });
});
