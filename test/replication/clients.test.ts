import {type ChildProcess, spawn} from 'node:child_process';
import {existsSync, mkdirSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {delimiter, join} from 'node:path';
import {createInterface} from 'node:readline';
import {fileURLToPath} from 'node:url';
import {afterAll, beforeAll, expect, test} from 'vitest';
import type {TestNode} from '../support/node.ts';
import {expectEqual, run, shell, startPair} from './support.ts';

// Every client brings a SQLite of its own, and knows nothing of us. What the registries gave is kept for the next run.

const SOURCES = fileURLToPath(new URL('./clients', import.meta.url));
const CACHE = join(tmpdir(), 'ferritefs-test-clients');
const MAVEN = join(CACHE, 'maven');
const JDBC_VERSION = '3.50.3.0';
const JDBC = join(MAVEN, `org/xerial/sqlite-jdbc/${JDBC_VERSION}/sqlite-jdbc-${JDBC_VERSION}.jar`);
const GO_CLIENT = join(CACHE, 'go-client');
const DOWNLOAD_MS = 240_000;
const WORK_MS = 50_000;
const PROGRAMS = ['python3', 'sqlite3', 'javac', 'mvn', 'go', 'env'];

const SUMMARY = "select count(*) || ' ' || sum(n) || ' ' || sum(length(v)) from t";
/** Of what each client wrote: rows, sum of n, bytes of v. */
const WRITTEN = '1603 3926699 654031';

interface Client {
  /** The program and its arguments, but for the path and what to do with it. */
  readonly write: (path: string) => readonly string[];
  readonly read: (path: string) => readonly string[];
}

/** A client whose program understands "write PATH" and "read PATH". */
function client(...command: readonly string[]): Client {
  return {write: path => [...command, 'write', path], read: path => [...command, 'read', path]};
}

const CLIENTS: Readonly<Record<string, Client>> = {
  'better-sqlite3, Node': client(process.execPath, join(SOURCES, 'client.mjs')),
  'sqlite3, Python': client('python3', join(SOURCES, 'client.py')),
  'the sqlite3 shell': {
    write: path => ['sqlite3', '-bail', path, `.read ${join(SOURCES, 'client.sql')}`],
    read: path => ['sqlite3', '-bail', path],
  },
  'sqlite-jdbc, Java': client('java', '-Xshare:auto', '-cp', JDBC, join(SOURCES, 'Client.java')),
  'go-sqlite3 on WebAssembly with OFD locks, Go': client(GO_CLIENT),
};

let primary: TestNode;
let follower: TestNode;
let destroy: (() => Promise<void>) | undefined;

beforeAll(async () => {
  const folders = (process.env.PATH ?? '').split(delimiter);
  const missing = PROGRAMS.filter(name => !folders.some(folder => existsSync(join(folder, name))));
  if (missing.length > 0)
    throw new Error(`Cannot run clients: no ${missing.join(', ')}; "npm run setup" installs them`);
  mkdirSync(CACHE, {recursive: true});
  await Promise.all([fetchJdbc(), buildGoClient()]);
  ({primary, follower, destroy} = await startPair());
}, DOWNLOAD_MS + 30_000);

afterAll(async () => await destroy?.());

async function fetchJdbc(): Promise<void> {
  if (existsSync(JDBC)) return;
  const artifact = `-Dartifact=org.xerial:sqlite-jdbc:${JDBC_VERSION}`;
  await run(
    'mvn',
    ['-q', '-B', 'dependency:get', artifact, '-Dtransitive=false', `-Dmaven.repo.local=${MAVEN}`],
    DOWNLOAD_MS,
  );
}

/** Go itself knows when there is nothing to do. */
async function buildGoClient(): Promise<void> {
  const settings = [
    `GOMODCACHE=${join(CACHE, 'go-modules')}`,
    `GOCACHE=${join(CACHE, 'go-build')}`,
    'GOFLAGS=-modcacherw',
    'CGO_ENABLED=0',
  ];
  await run(
    'env',
    [
      ...settings,
      'go',
      'build',
      '-C',
      join(SOURCES, 'go'),
      '-mod=readonly',
      '-buildvcs=false',
      '-o',
      GO_CLIENT,
      '.',
    ],
    DOWNLOAD_MS,
  );
}

/** A client with one connection that stays open: answers SQL line by line. */
class Reader {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #errors = '';

  constructor([program = '', ...args]: readonly string[]) {
    const child = spawn('timeout', ['-k', '1', String(WORK_MS / 1000), program, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    child.stderr.on('data', bytes => {
      this.#errors += String(bytes);
    });
    child.stdin.on('error', () => undefined); // The answer that does not come says more.
    this.#process = child;
    this.#lines = createInterface({input: child.stdout})[Symbol.asyncIterator]();
  }

  async ask(sql: string): Promise<string> {
    this.#process.stdin?.write(`${sql};\n`);
    const {value, done} = await this.#lines.next();
    if (done === true) throw new Error(`reader ended: ${this.#errors}`);
    return value;
  }

  async end(): Promise<number | null> {
    const ended = new Promise<number | null>(resolve => this.#process.once('close', resolve));
    this.#process.stdin?.end();
    return await ended;
  }
}

test.each(Object.entries(CLIENTS))(
  '%s: writes on the primary, reads on the follower what comes',
  async (title, {write, read}) => {
    const name = `${title.split(/\W/, 1)[0]}-${Object.keys(CLIENTS).indexOf(title)}.db`;
    const [program = '', ...args] = write(primary.path(name));
    await run(program, args, WORK_MS);
    await expectEqual(primary, follower, [name]);

    const reader = new Reader(read(follower.path(name)));
    expect(await reader.ask(SUMMARY)).toBe(WRITTEN);
    expect(await reader.ask('pragma integrity_check')).toBe('ok');
    for (const [sql, count] of [
      ['insert into t(n, v) values(5005, zeroblob(9))', 1604],
      ['pragma journal_mode=delete; delete from t where n=5005', 1603],
      ['insert into t(n, v) values(5006, zeroblob(9)), (5007, zeroblob(9)); vacuum', 1605],
      ['pragma journal_mode=wal; delete from t where n between 0 and 49', 1555],
    ] as const) {
      await shell(primary.path(name), '.timeout 10000', sql);
      await expectEqual(primary, follower, [name]);
      expect(await reader.ask('select count(*) from t'), sql).toBe(String(count));
    }
    expect(await reader.ask('pragma integrity_check')).toBe('ok');
    expect(await reader.end()).toBe(0);
  },
);
