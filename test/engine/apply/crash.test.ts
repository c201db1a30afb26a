import {execFileSync, spawn} from 'node:child_process';
import {once} from 'node:events';
import {copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import Database from 'better-sqlite3';
import {expect, test} from 'vitest';
import type {FollowerDatabase} from '../../../src/engine/apply/follower-database.ts';
import type {PageTransaction} from '../../../src/engine/apply/page-transaction.ts';
import {Disk} from '../../../src/lib/disk.ts';
import {PowerLossDisk} from '../../log/power-loss-disk.ts';
import {applyPatiently, expectSameBytes, makeDirectory, openFollower} from './support/follower.ts';
import {Primary, seededRandom} from './support/primary.ts';
import {Reader} from './support/readers.ts';

class Crash extends Error {}

/** Dies at its n-th named call, in the middle of it if that is a write, and stays dead. */
class MortalDisk extends Disk {
  readonly names: string[];
  readonly #crashAt: number;

  constructor(crashAt: number) {
    const names: string[] = [];
    super({
      onCall: name => {
        names.push(name);
        if (names.length >= crashAt) throw new Crash(name);
      },
    });
    this.names = names;
    this.#crashAt = crashAt;
  }

  override write(name: string, fd: number, bytes: Uint8Array, position: number): void {
    if (this.names.length + 1 === this.#crashAt) {
      new Disk().write(name, fd, bytes.subarray(0, bytes.length >> 1), position);
    }
    super.write(name, fd, bytes, position);
  }
}

interface Recorded {
  readonly transaction: PageTransaction;
  readonly bytes: Uint8Array;
}

/** Transactions that can be applied at any time, with the database's bytes after each. */
function record(path: string, changes: readonly (string | undefined)[]): Recorded[] {
  const primary = new Primary(path, 21, ['page_size=1024']);
  const recorded = [{transaction: primary.capture(), bytes: primary.bytes}];
  for (const sql of changes) {
    if (sql !== undefined) primary.database.exec(sql);
    const transaction = sql === undefined ? primary.step() : primary.capture();
    recorded.push({transaction, bytes: primary.bytes});
  }
  primary.close();
  return recorded;
}

/** Applies all; returns the number of transactions that were applied before the disk died. */
function applyAll(follower: FollowerDatabase, recorded: readonly Recorded[], first: number): number {
  let index = first;
  try {
    for (; index < recorded.length; index++) {
      applyPatiently(follower, recorded[index].transaction);
      if (index % 4 === 3) follower.checkpoint();
    }
  } catch (error) {
    if (!isCrash(error)) throw error;
  }
  return index;
}

function isCrash(error: unknown): boolean {
  return error instanceof Crash || (error instanceof Error && error.cause instanceof Crash);
}

/** What a SQLite that comes upon the files finds, while no daemon is there: the bytes of one state. */
function survivorBytes(path: string, copy: string): Uint8Array {
  rmSync(copy, {recursive: true, force: true});
  mkdirSync(copy);
  for (const suffix of ['', '-wal', '-journal']) {
    if (existsSync(path + suffix)) copyFileSync(path + suffix, join(copy, `app.db${suffix}`));
  }
  if (!existsSync(join(copy, 'app.db'))) return new Uint8Array(0);
  const database = new Database(join(copy, 'app.db'));
  try {
    // This recovers, be it from the WAL or the journal. An empty file has nothing to serialise.
    database.prepare('SELECT count(*) FROM sqlite_schema').all();
    if (statSync(join(copy, 'app.db')).size === 0) return new Uint8Array(0);
    return new Uint8Array(database.serialize());
  } finally {
    database.close();
  }
}

const SCENARIOS = {
  WAL: [
    'PRAGMA journal_mode=WAL',
    undefined,
    undefined,
    undefined,
    'VACUUM',
    undefined,
    undefined,
    undefined,
  ],
  rollback: [undefined, undefined, 'DELETE FROM bulk; VACUUM', undefined, undefined],
  switching: [
    'PRAGMA journal_mode=WAL',
    undefined,
    'PRAGMA journal_mode=DELETE',
    'PRAGMA page_size=4096; VACUUM',
    'PRAGMA journal_mode=WAL',
    undefined,
    'PRAGMA journal_mode=DELETE; PRAGMA page_size=512; VACUUM',
  ],
};

for (const [name, changes] of Object.entries(SCENARIOS)) {
  test(`${name}: a crash at any disk call leaves one whole state, and applying goes on from there`, {
    timeout: 120_000,
  }, () => {
    using directory = makeDirectory();
    const recorded = record(join(directory.path, 'primary.db'), changes);
    const path = join(directory.path, 'app.db');
    for (let crashAt = 1; ; crashAt++) {
      for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(path + suffix, {force: true});
      const disk = new MortalDisk(crashAt);
      const follower = openFollower(path, {
        disk,
        sync: 'normal',
        walSizeMax: 0,
        nowMs: () => disk.names.length * 1e6,
      });
      const applied = applyAll(follower, recorded, 0);
      follower.close();
      if (applied === recorded.length) break;

      const state = survivorBytes(path, join(directory.path, 'survivor'));
      const states = [recorded[applied - 1]?.bytes ?? new Uint8Array(0), recorded[applied].bytes];
      const found = states.findIndex(bytes => Buffer.compare(bytes, state) === 0);
      expect(found, `state after a crash at ${disk.names.at(-1)}, call ${crashAt}`).not.toBe(-1);

      const next = openFollower(path, {sync: 'normal'});
      expect(applyAll(next, recorded, applied)).toBe(recorded.length);
      expectSameBytes(next, recorded[recorded.length - 1].bytes);
      next.close();
      const last = survivorBytes(path, join(directory.path, 'survivor'));
      expect(Buffer.compare(last, recorded[recorded.length - 1].bytes)).toBe(0);
    }
  });
}

test('WAL: a loss of power after the log began anew leaves what was checkpointed, or a later state', () => {
  using directory = makeDirectory();
  const recorded = record(join(directory.path, 'primary.db'), [
    'PRAGMA journal_mode=WAL',
    'UPDATE version SET v = 1',
    'UPDATE version SET v = 2',
    undefined,
  ]);
  const checkpointed = 3;
  for (let seed = 0; seed < 100; seed++) {
    const root = join(directory.path, `power-${seed}`);
    mkdirSync(root);
    const path = join(root, 'app.db');
    const first = openFollower(path);
    for (const {transaction} of recorded.slice(0, 2)) first.apply(transaction);
    first.checkpoint();
    first.close();
    const disk = new PowerLossDisk(root);
    const follower = openFollower(path, {disk, sync: 'normal'});
    for (const {transaction} of recorded.slice(2, checkpointed + 1)) follower.apply(transaction);
    expect(follower.checkpoint().restarted).toBe(true);
    for (const {transaction} of recorded.slice(checkpointed + 1)) follower.apply(transaction);
    follower.close();
    const left = join(directory.path, `left-${seed}`);
    const random = seededRandom(seed);
    disk.lose(left, end => random() % end);
    const state = survivorBytes(join(left, 'app.db'), join(directory.path, 'survivor'));
    const isWhole = recorded.slice(checkpointed).some(({bytes}) => Buffer.compare(bytes, state) === 0);
    expect(isWhole, `state after a loss of power, seed ${seed}`).toBe(true);
  }
});

test('a full disk leaves the state before, and the same follower applies again', () => {
  using directory = makeDirectory();
  for (const mode of ['WAL', 'DELETE']) {
    const recorded = record(join(directory.path, `${mode}-primary.db`), [
      `PRAGMA journal_mode=${mode}`,
      undefined,
      undefined,
    ]);
    const path = join(directory.path, `${mode}.db`);
    let isFull = false;
    const onCall = (name: string): void => {
      if (isFull && /append|rollback-apply:write|journal:write/.test(name)) throw new Error('ENOSPC');
    };
    const follower = openFollower(path, {disk: new Disk({onCall})});
    for (const {transaction, bytes} of recorded) {
      const before = follower.pageCount > 0;
      isFull = before;
      if (before) expect(() => follower.apply(transaction)).toThrow('ENOSPC');
      isFull = false;
      expect(follower.apply(transaction)).toBe('applied');
      expectSameBytes(follower, bytes);
    }
    follower.close();
  }
});

/** Compiles the sources for processes of their own, where their packages are found. */
function compile(): string {
  const project = fileURLToPath(new URL('../../../', import.meta.url));
  const root = mkdtempSync(join(project, 'node_modules', '.ferrite-test-'));
  const command = join(project, 'node_modules/.bin/tsc');
  try {
    execFileSync(command, ['-p', project, '--outDir', root, '--noEmitOnError', 'false'], {stdio: 'ignore'});
  } catch {
    // Types are checked elsewhere; what matters here is what was written.
  }
  return root;
}

/** Applies so many that the tables are there for readers; returns the last one's index. */
function applyFirst(path: string, recorded: readonly Recorded[]): number {
  const follower = openFollower(path);
  for (const {transaction} of recorded.slice(0, 3)) follower.apply(transaction);
  follower.close();
  return 2;
}

function save({transaction}: Recorded): string {
  const {pageSize, commit} = transaction;
  const pages: [number, string][] = [];
  for (const {pgno, page} of transaction.pages()) pages.push([pgno, Buffer.from(page).toString('base64')]);
  return JSON.stringify({pageSize, commit, pages});
}

for (const mode of ['WAL', 'DELETE']) {
  test(`journal_mode=${mode}: a follower killed at random under readers loses nothing`, {
    timeout: 120_000,
  }, async () => {
    using directory = makeDirectory();
    const steps = Array.from({length: 80}, () => undefined);
    const recorded = record(join(directory.path, 'primary.db'), [`PRAGMA journal_mode=${mode}`, ...steps]);
    const recording = join(directory.path, 'recording');
    writeFileSync(recording, recorded.map(save).join('\n'));
    const path = join(directory.path, 'app.db');
    const root = compile();
    const script = fileURLToPath(new URL('support/apply-process.mjs', import.meta.url));
    const random = seededRandom(31);
    let applied = applyFirst(path, recorded);
    let kills = 0;
    const readers = await Promise.all([Reader.start(path, 'short', 10), Reader.start(path, 'python')]);
    try {
      while (applied < recorded.length - 1 && kills < 60) {
        const child = spawn(process.execPath, [script, root, path, recording, String(applied + 1)]);
        child.stderr.pipe(process.stderr);
        let output = '';
        child.stdout.on('data', data => {
          output += data;
        });
        const closed = once(child, 'close');
        await Promise.race([once(child.stdout, 'data'), closed]);
        await Promise.race([setTimeout(random() % 50), closed]);
        child.kill('SIGKILL');
        await closed;
        kills++;
        const last = output.slice(0, output.lastIndexOf('\n')).split('\n').at(-1);
        if (last) applied = Number(last);
      }
      for (const result of await Promise.all(readers.map(reader => reader.stop()))) {
        expect(result.errors).toEqual([]);
        expect(result.reads).toBeGreaterThan(10);
      }
      expect(applied).toBe(recorded.length - 1);
      expect(kills).toBeGreaterThan(2);
      const follower = openFollower(path);
      expectSameBytes(follower, recorded[recorded.length - 1].bytes);
      follower.close();
    } finally {
      rmSync(root, {recursive: true, force: true});
    }
  });
}
