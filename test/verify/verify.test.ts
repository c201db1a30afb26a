import {execFileSync} from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, afterEach, beforeAll, describe, expect, test} from 'vitest';
import {BASE_FILE_SIZE} from '../../src/log/log-base.ts';
import {decodeIndexEntry, INDEX_ENTRY_SIZE, type LogEntry} from '../../src/log/log-entry.ts';
import {encodeSyncedMark, MARK_FILE_SIZE} from '../../src/log/synced-mark.ts';
import {formatPosition, type Txid} from '../../src/ltx/position.ts';
import {makeRandom} from '../log/support.ts';
import {TestNode} from '../support/node.ts';
import {
  copyOf,
  findings,
  holdApp,
  killApp,
  listFiles,
  removeCopies,
  runApp,
  runCommand,
  summarize,
  violations,
} from './support/data.ts';

const PAGE_SIZE = 4096;
const CHECKSUM_HEADER_USED = 44;

function insert(count: number): string {
  return `WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM c WHERE i < ${count}) INSERT INTO t SELECT i, hex(randomblob(200)) FROM c`;
}

let node: TestNode;
/** Stopped in order; apps with a WAL were killed before, so the WAL is there. */
let closed = '';
/** Daemon and apps killed in the middle of what they did. */
let killed = '';

beforeAll(async () => {
  node = await TestNode.start({role: 'primary'});
  mkdirSync(node.path('sub'));
  await runApp(node.path('delete.db'), 'CREATE TABLE t(a, b)', insert(300), insert(5));
  await runApp(
    node.path('sub/shrunk.db'),
    'CREATE TABLE t(a, b)',
    insert(200),
    'DELETE FROM t WHERE a > 50',
    'VACUUM',
  );
  await runApp(node.path('memory.db'), 'CREATE TABLE t(a, b)', insert(100));
  const app = await holdApp(
    node.path('wal.db'),
    'PRAGMA journal_mode=WAL',
    'CREATE TABLE t(a, b)',
    insert(200),
    'PRAGMA wal_checkpoint',
    insert(20),
    insert(30),
  );
  await killApp(app);
  await node.stop();
  closed = copyOf(node.data);
  await expectNothing(node.data);
  await node.restart();
  await runApp(node.path('sub/shrunk.db'), insert(10));
  const spill = ['PRAGMA cache_size=5', 'BEGIN', 'UPDATE t SET b = hex(randomblob(190))'];
  const apps = [
    await holdApp(node.path('wal.db'), insert(20), insert(3), 'BEGIN', insert(10)),
    await holdApp(node.path('delete.db'), ...spill),
    await holdApp(node.path('memory.db'), 'PRAGMA journal_mode=MEMORY', ...spill),
  ];
  await node.killAll();
  for (const each of apps) await killApp(each);
  killed = copyOf(node.data);
});

afterAll(async () => {
  await node?.destroy();
  removeCopies();
});

const made: string[] = [];
afterEach(() => {
  for (const directory of made.splice(0)) rmSync(directory, {recursive: true, force: true});
});

function damaged(directory: string, damage: (copy: string) => void): string {
  const copy = copyOf(directory);
  made.push(copy);
  damage(copy);
  return copy;
}

async function expectNothing(directory: string): Promise<void> {
  expect(summarize(await findings(directory))).toEqual([]);
}

function idOf(directory: string, name: string): string {
  const lines = readFileSync(join(directory, 'catalog'), 'utf8').trim().split('\n');
  const line = lines
    .map(text => JSON.parse(text) as {id: string; name?: string})
    .findLast(each => each.name === name);
  if (line === undefined) throw new Error(`no ${name}`);
  return line.id;
}

const SEGMENT = '0000000000000001.ltxs';
const INDEX = '0000000000000001.ltxi';
const logPath = (directory: string, name: string, file: string) =>
  join('databases', idOf(directory, name), 'log', file);
const statePath = (directory: string, name: string, file: string) =>
  join('databases', idOf(directory, name), file);

function flip(path: string, offset: number, bit = 0): void {
  const fd = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, offset);
  byte[0] ^= 1 << bit;
  writeSync(fd, byte, 0, 1, offset);
  closeSync(fd);
}

function overwrite(path: string, offset: number, byte: number): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Uint8Array.of(byte), 0, 1, offset);
  closeSync(fd);
}

function entriesOf(directory: string, name: string): LogEntry[] {
  const bytes = readFileSync(join(directory, logPath(directory, name, INDEX)));
  const entries: LogEntry[] = [];
  for (let at = 0; at + INDEX_ENTRY_SIZE <= bytes.length; at += INDEX_ENTRY_SIZE) {
    const entry = decodeIndexEntry(bytes.subarray(at, at + INDEX_ENTRY_SIZE), SEGMENT);
    if (entry !== undefined) entries.push(entry);
  }
  return entries;
}

const codes = async (directory: string) =>
  new Set(violations(await findings(directory)).map(({code}) => code));

describe('verifyDataDirectory()', () => {
  test('finds nothing but the copy in a copy of what was closed', async () => {
    const found = await findings(closed);
    expect([...new Set(found.map(({level, code}) => `${level} ${code}`))]).toEqual(['note TOUCHED']);
    expect(found).toHaveLength(4);
  });

  test('has notes only after everything was killed', async () => {
    const found = await findings(node.data);
    expect(violations(found)).toEqual([]);
    const summary = summarize(found);
    expect(summary).toContain('note IN_USE files/wal.db');
    expect(summary).toContain('note JOURNAL_HOT files/delete.db-journal');
    expect(summary).toContain('note NEEDS_RECOVERY files/memory.db');
    expect(summary).not.toContain('note NEEDS_RECOVERY files/delete.db');
  });

  test('changes nothing', async () => {
    const snapshot = () =>
      listFiles(killed)
        .sort()
        .map(
          path =>
            `${path} ${statSync(join(killed, path)).mtimeMs} ${readFileSync(join(killed, path), 'base64')}`,
        );
    const before = snapshot();
    await findings(killed);
    expect(snapshot()).toEqual(before);
  });

  test.for([
    [
      'record',
      'delete.db',
      'LOG_RECORD_CORRUPT',
      (d: string) => flip(join(d, logPath(d, 'delete.db', SEGMENT)), 5000),
    ],
    [
      'index',
      'delete.db',
      'INDEX_MISMATCH',
      (d: string) => flip(join(d, logPath(d, 'delete.db', INDEX)), 140),
    ],
    [
      'base',
      'delete.db',
      'LOG_BASE_CORRUPT',
      (d: string) => flip(join(d, logPath(d, 'delete.db', 'base')), 20),
    ],
    [
      'mark',
      'delete.db',
      'LOG_MARK_CORRUPT',
      (d: string) => flip(join(d, logPath(d, 'delete.db', 'synced')), 9),
    ],
    [
      'checksums header',
      'delete.db',
      'CHECKSUMS_CORRUPT',
      (d: string) => flip(join(d, statePath(d, 'delete.db', 'checksums')), 13),
    ],
    [
      'checksums entry',
      'delete.db',
      'CHECKSUMS_BAD_ENTRY',
      (d: string) => flip(join(d, statePath(d, 'delete.db', 'checksums')), 4096 + 17),
    ],
    [
      'page',
      'delete.db',
      'PAGE_MISMATCH',
      (d: string) => flip(join(d, 'files/delete.db'), 3 * PAGE_SIZE + 1),
    ],
    [
      'page after a shrink',
      'sub/shrunk.db',
      'PAGE_MISMATCH',
      (d: string) => flip(join(d, 'files/sub/shrunk.db'), PAGE_SIZE + 7),
    ],
    [
      'page size',
      'delete.db',
      'PAGE_SIZE_MISMATCH',
      (d: string) => overwrite(join(d, 'files/delete.db'), 16, 0x08),
    ],
    ['page count', 'delete.db', 'PAGE_COUNT_MISMATCH', (d: string) => flip(join(d, 'files/delete.db'), 31)],
    ['WAL frame', 'wal.db', 'WAL_SHORT', (d: string) => flip(join(d, 'files/wal.db-wal'), 32 + 24 + 100)],
    ['WAL header', 'wal.db', 'WAL_HEADER_CORRUPT', (d: string) => flip(join(d, 'files/wal.db-wal'), 17)],
    ['identity', '', 'STATE_CORRUPT', (d: string) => writeFileSync(join(d, 'identity'), '{')],
    ['catalog line', '', 'CATALOG_CORRUPT', (d: string) => flip(join(d, 'catalog'), 0)],
  ] as const)('finds a damaged %s', async ([, , code, damage]) => {
    expect(await codes(damaged(closed, damage))).toContain(code);
  });

  test('finds no more than the one damaged page, entry or index', async () => {
    const page = damaged(closed, d => flip(join(d, 'files/delete.db'), 3 * PAGE_SIZE + 1));
    expect(violations(await findings(page))).toMatchObject([
      {code: 'PAGE_MISMATCH', path: 'files/delete.db', detail: {firstPgno: 4, lastPgno: 4}},
    ]);
    const index = damaged(closed, d => flip(join(d, logPath(d, 'delete.db', INDEX)), 140));
    expect(await codes(index)).toEqual(new Set(['INDEX_MISMATCH']));
    const record = damaged(closed, d => flip(join(d, logPath(d, 'delete.db', SEGMENT)), 5000));
    expect(await codes(record)).toEqual(new Set(['LOG_RECORD_CORRUPT']));
    const mark = damaged(closed, d => flip(join(d, logPath(d, 'delete.db', 'synced')), 9));
    expect(await codes(mark)).toEqual(new Set(['LOG_MARK_CORRUPT']));
  });

  test('goes on after the first violation', async () => {
    const copy = damaged(closed, d => {
      flip(join(d, 'files/delete.db'), 3 * PAGE_SIZE + 1);
      flip(join(d, 'files/delete.db'), 9 * PAGE_SIZE + 1);
      flip(join(d, logPath(d, 'wal.db', SEGMENT)), 300);
      flip(join(d, 'files/sub/shrunk.db'), PAGE_SIZE + 1);
    });
    const found = violations(await findings(copy)).map(({code, path, detail}) => [
      code,
      path,
      detail.firstPgno,
    ]);
    expect(found).toContainEqual(['PAGE_MISMATCH', 'files/delete.db', 4]);
    expect(found).toContainEqual(['PAGE_MISMATCH', 'files/delete.db', 10]);
    expect(found).toContainEqual(['PAGE_MISMATCH', 'files/sub/shrunk.db', 2]);
    expect(found.map(([code]) => code)).toContain('LOG_RECORD_CORRUPT');
  });

  test.for([
    ['log segment', 'LOG_SHORT', (d: string) => logPath(d, 'delete.db', SEGMENT)],
    ['index', 'FILE_MISSING', (d: string) => logPath(d, 'delete.db', INDEX)],
    ['base', 'FILE_MISSING', (d: string) => logPath(d, 'delete.db', 'base')],
    ['log', 'FILE_MISSING', (d: string) => join('databases', idOf(d, 'delete.db'), 'log')],
    ['checksums', 'FILE_MISSING', (d: string) => statePath(d, 'delete.db', 'checksums')],
    ['folder', 'FILE_MISSING', (d: string) => join('databases', idOf(d, 'delete.db'))],
    ['database file', 'FILE_MISSING', () => 'files/delete.db'],
    ['WAL', 'PAGE_MISMATCH', () => 'files/wal.db-wal'],
    ['folder of files', 'FILE_MISSING', () => 'files'],
    ['catalog', 'FILE_MISSING', () => 'catalog'],
  ] as const)('finds that the %s is missing', async ([, code, path]) => {
    const copy = damaged(closed, d => rmSync(join(d, path(d)), {recursive: true}));
    expect(await codes(copy)).toContain(code);
  });

  test('notes files that nobody knows, and refuses them in a log', async () => {
    const copy = damaged(closed, d => {
      writeFileSync(join(d, 'what'), '');
      writeFileSync(join(d, 'databases', 'what'), '');
      mkdirSync(join(d, 'databases', '0'.repeat(32)));
      writeFileSync(join(d, statePath(d, 'delete.db', 'what')), '');
      writeFileSync(join(d, logPath(d, 'delete.db', 'what')), '');
    });
    const found = await findings(copy);
    expect(found.filter(({level, code}) => level === 'note' && code === 'FILE_UNKNOWN')).toHaveLength(4);
    expect(violations(found)).toMatchObject([
      {code: 'FILE_UNKNOWN', path: logPath(copy, 'delete.db', 'what')},
    ]);
  });

  test('checks the catalog: torn, twice the same name, a summary that is not so', async () => {
    const torn = damaged(closed, d => appendFileSync(join(d, 'catalog'), '{"id":"00'));
    expect(violations(await findings(torn))).toEqual([]);
    expect(summarize(await findings(torn))).toContain('note CATALOG_TORN catalog');
    const id = 'a'.repeat(32);
    const twice = damaged(closed, d =>
      appendFileSync(join(d, 'catalog'), `${JSON.stringify({id, name: 'delete.db'})}\n`),
    );
    expect(await codes(twice)).toEqual(new Set(['CATALOG_DUPLICATE_NAME', 'FILE_MISSING']));
    const summary = {
      position: '00000000000000ff/8000000000000001',
      term: '1',
      pageSize: PAGE_SIZE,
      commit: 9,
    };
    const stale = damaged(closed, d =>
      appendFileSync(
        join(d, 'catalog'),
        `${JSON.stringify({id: idOf(d, 'delete.db'), name: 'delete.db', summary})}\n`,
      ),
    );
    expect(await codes(stale)).toEqual(new Set(['CATALOG_SUMMARY_MISMATCH']));
  });

  test('takes a record that is cut short for a crash only where the database was in use', async () => {
    const tear = (d: string) => {
      const last = entriesOf(d, 'wal.db').at(-1);
      truncateSync(join(d, logPath(d, 'wal.db', SEGMENT)), (last?.offset ?? 0) + (last?.size ?? 0) - 30);
    };
    const inUse = await findings(damaged(killed, tear));
    expect(violations(inUse)).toEqual([]);
    const path = logPath(killed, 'wal.db', SEGMENT);
    expect(summarize(inUse)).toContain(`note LOG_TORN_TAIL ${path}`);
    expect(summarize(inUse)).toContain('note NEEDS_RECOVERY files/wal.db');
    expect(await codes(damaged(closed, tear))).toContain('LOG_RECORD_CORRUPT');
  });

  test('takes frames of the WAL that are not logged for a crash, and still finds other damage', async () => {
    const cut = (d: string) => {
      const last = entriesOf(d, 'wal.db').at(-1);
      truncateSync(join(d, logPath(d, 'wal.db', SEGMENT)), last?.offset ?? 0);
    };
    const behind = await findings(damaged(killed, cut));
    expect(violations(behind)).toEqual([]);
    expect(summarize(behind)).toContain('note NEEDS_RECOVERY files/wal.db');
    const also = damaged(killed, d => {
      cut(d);
      flip(join(d, 'files/wal.db'), 5 * PAGE_SIZE + 9);
    });
    expect(violations(await findings(also))).toMatchObject([
      {code: 'PAGE_MISMATCH', path: 'files/wal.db', detail: {firstPgno: 6}},
    ]);
  });

  test('finds durable records missing, after a crash too', async () => {
    const copy = damaged(killed, d => {
      const last = entriesOf(d, 'wal.db').at(-1);
      writeFileSync(join(d, logPath(d, 'wal.db', 'synced')), encodeSyncedMark(last?.maxTxid ?? (0n as Txid)));
      truncateSync(join(d, logPath(d, 'wal.db', SEGMENT)), last?.offset ?? 0);
    });
    expect(await codes(copy)).toContain('LOG_SHORT');
  });

  test('finds a damaged page under a hot journal that does not restore it', async () => {
    const copy = damaged(killed, d => truncateSync(join(d, 'files/delete.db-journal'), 512 + PAGE_SIZE + 8));
    expect(await codes(copy)).toEqual(new Set(['PAGE_MISMATCH']));
  });

  test('lets a follower lag behind its log, and not behind its position', async () => {
    const copy = damaged(closed, d => {
      const entries = entriesOf(d, 'delete.db');
      const end = entries.at(-1);
      if (end === undefined) throw new Error('the log has records');
      writeFileSync(
        join(d, statePath(d, 'delete.db', 'position')),
        `${formatPosition({txid: end.maxTxid, checksum: end.postApplyChecksum})}\n`,
      );
    });
    expect(violations(await findings(copy))).toEqual([]);
    const entries = entriesOf(copy, 'delete.db');
    const before = entries[entries.length - 2];
    const file = join(copy, 'files/delete.db');
    // The last transaction has page 1 at least: SQLite counts changes there.
    flip(file, 27);
    expect(await codes(copy)).toEqual(new Set(['PAGE_MISMATCH']));
    const positionPath = join(copy, statePath(copy, 'delete.db', 'position'));
    writeFileSync(
      positionPath,
      `${formatPosition({txid: before.maxTxid, checksum: before.postApplyChecksum})}\n`,
    );
    const found = await findings(copy);
    expect(violations(found)).toEqual([]);
    expect(summarize(found)).toContain('note NEEDS_RECOVERY files/delete.db');
    writeFileSync(positionPath, '0000000000000002/8000000000000001\n');
    expect(await codes(copy)).toContain('POSITION_BAD');
    writeFileSync(positionPath, 'x');
    expect(await codes(copy)).toContain('POSITION_BAD');
  });

  test('finds checksums that belong to another log', async () => {
    const copy = damaged(closed, d =>
      copyFileSync(
        join(d, statePath(d, 'memory.db', 'checksums')),
        join(d, statePath(d, 'delete.db', 'checksums')),
      ),
    );
    expect(await codes(copy)).toEqual(new Set(['CHECKSUMS_NOT_IN_LOG']));
  });
});

describe('verifyDataDirectory() and damage at random', () => {
  /** How many bytes from the start of the file, of a closed database, are all needed. */
  function neededSize(directory: string, path: string): number {
    if (path.endsWith('.ltxs') || path.endsWith('.ltxi')) return statSync(join(directory, path)).size;
    if (path.endsWith('/base')) return BASE_FILE_SIZE;
    if (path.endsWith('/synced')) return MARK_FILE_SIZE;
    if (path.endsWith('/checksums')) return CHECKSUM_HEADER_USED;
    if (path === 'files/delete.db' || path === 'files/sub/shrunk.db' || path === 'files/memory.db')
      return statSync(join(directory, path)).size;
    return 0;
  }

  test('finds every flipped bit of what is needed', async () => {
    const seed = Date.now() % 1_000_000;
    const random = makeRandom(seed);
    const copy = damaged(closed, () => undefined);
    const paths = listFiles(copy).filter(path => neededSize(copy, path) > 0);
    expect(paths.length).toBeGreaterThan(20);
    for (let round = 0; round < 120; round++) {
      const path = paths[random(paths.length)];
      const [offset, bit] = [random(neededSize(copy, path)), random(8)];
      flip(join(copy, path), offset, bit);
      const found = violations(await findings(copy));
      expect(found.length, `seed ${seed}: bit ${bit} of byte ${offset} of ${path}`).toBeGreaterThan(0);
      flip(join(copy, path), offset, bit);
    }
    expect(violations(await findings(copy))).toEqual([]);
  });

  test('never throws, whatever the bytes', async () => {
    const seed = Date.now() % 1_000_000;
    const random = makeRandom(seed);
    for (const from of [killed]) {
      const copy = damaged(from, () => undefined);
      for (const path of listFiles(copy)) {
        const file = join(copy, path);
        const original = readFileSync(file);
        const size = random(original.length + 1);
        const garbage = Uint8Array.from(original).map(byte => (random(4) === 0 ? random(256) : byte));
        for (const bytes of [
          original.subarray(0, size),
          garbage,
          Buffer.alloc(original.length),
          Buffer.alloc(0),
        ]) {
          writeFileSync(file, bytes);
          await findings(copy).catch((error: unknown) => {
            throw new Error(`seed ${seed}: ${path}`, {cause: error});
          });
        }
        writeFileSync(file, original);
      }
    }
  });

  test('says that a file is none: a folder, a pipe, a link', async () => {
    const copy = damaged(killed, () => undefined);
    const paths = listFiles(copy).filter(path =>
      /^files\/|(^|\/)(catalog|identity|base|synced|checksums|dirty|\w+\.ltx[si])$/.test(path),
    );
    for (const path of paths) {
      const file = join(copy, path);
      const original = readFileSync(file);
      for (const replace of [
        () => mkdirSync(file),
        () => execFileSync('mkfifo', [file]),
        () => execFileSync('ln', ['-s', file, file]),
      ]) {
        rmSync(file, {recursive: true});
        replace();
        const found = await findings(copy);
        if (!path.endsWith('-shm'))
          expect(
            found.some(({code}) => code === 'READ_FAILED'),
            path,
          ).toBe(true);
      }
      rmSync(file);
      writeFileSync(file, original);
    }
  });
});

describe('ferrite verify', () => {
  test('ends with 0 for notes and 1 for violations', async () => {
    const clean = damaged(killed, () => undefined);
    const good = await runCommand(clean);
    expect(good.code, good.stderr).toBe(0);
    expect(good.stdout).toMatch(/^note IN_USE files\/wal\.db: /m);
    flip(join(clean, 'files/wal.db'), 5 * PAGE_SIZE + 9);
    const bad = await runCommand(clean);
    expect(bad.code).toBe(1);
    expect(bad.stdout).toMatch(/^violation PAGE_MISMATCH files\/wal\.db: Page 6: /m);
    expect(bad.stdout).toMatch(/^violations: 1, notes: \d+$/m);
  });

  test('refuses what is no data directory, and puts nothing there', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ferrite-verify-'));
    made.push(directory);
    const result = await runCommand(directory);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/^ERROR: Cannot verify .*: it is no data directory/);
    expect(readdirSync(directory)).toEqual([]);
    expect((await runCommand(join(directory, 'none'))).stderr).toMatch(/there is no such folder/);
  });

  test('refuses a data directory in use', async () => {
    await node.restart();
    // SQLite rolls hot journals back when somebody reads.
    for (const name of ['delete.db', 'memory.db']) await runApp(node.path(name), 'PRAGMA user_version');
    const result = await runCommand(node.data);
    expect(result.code).toBe(1);
    expect(result.stdout).toBe('');
    expect(result.stderr).toMatch(/^ERROR: Cannot use .*: another ferrite serves it/);
    await node.stop();
  });

  test('finds nothing once a start has recovered what was killed', async () => {
    const result = await runCommand(node.data);
    expect(result.stdout).toBe('violations: 0, notes: 0\n');
    expect(result.code).toBe(0);
  });
});
