import {setTimeout as sleep, setImmediate as turn} from 'node:timers/promises';
import Database from 'better-sqlite3';
import {
  type Job,
  type JournalMode,
  type Message,
  monotonicMs,
  type RateResult,
  UNPACED,
  type WatchResult,
  type WriterResult,
} from './jobs.ts';

// The load generator: an ordinary program with ordinary SQLite that knows of no file system. One job, then it ends.

const ROW = Buffer.alloc(100, 'ferrite ');
const WARM_UP_MS = 100;
const WATCH_PAUSE_MS = 0.1;
const TIMES_COUNT_MAX = 1_000_000;
const ERROR_COUNT_MAX = 1000;
const BUSY_TIMEOUT_MS = 10_000;

const state = {isStopped: false};
const idle = new Int32Array(new SharedArrayBuffer(4));

function open(path: string, journalMode?: JournalMode, synchronous?: 'NORMAL' | 'FULL'): Database.Database {
  const database = new Database(path, {timeout: BUSY_TIMEOUT_MS});
  if (journalMode !== undefined) database.pragma(`journal_mode = ${journalMode}`);
  if (synchronous !== undefined) database.pragma(`synchronous = ${synchronous}`);
  return database;
}

function createTable(database: Database.Database): Database.Statement {
  database.exec('CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, body BLOB)');
  return database.prepare('INSERT INTO item (body) VALUES (?)');
}

/** Calls `step` for `durationMs` after a short warm-up. Returns calls per second. */
function rateOf(durationMs: number, step: () => void): RateResult {
  for (const end = performance.now() + Math.min(WARM_UP_MS, durationMs / 4); performance.now() < end; )
    step();
  const start = performance.now();
  let count = 0;
  let now = start;
  for (; now - start < durationMs; now = performance.now()) {
    step();
    count++;
  }
  return {perSecond: (count / (now - start)) * 1000};
}

function insert(job: Extract<Job, {kind: 'insert'}>): RateResult {
  const database = open(job.path, job.journalMode, job.synchronous);
  const statement = createTable(database);
  const result = rateOf(job.durationMs, () => statement.run(ROW));
  database.close();
  return result;
}

function bulk(job: Extract<Job, {kind: 'bulk'}>): RateResult {
  const database = open(job.path, 'WAL', 'NORMAL');
  const statement = createTable(database);
  const insertAll = database.transaction(() => {
    for (let i = 0; i < job.rowCount; i++) statement.run(ROW);
  });
  const start = performance.now();
  insertAll();
  const result = {perSecond: (job.rowCount / (performance.now() - start)) * 1000};
  database.close();
  return result;
}

/** Random bytes, so that nothing compresses them away. */
function fill(job: Extract<Job, {kind: 'fill'}>): null {
  const database = open(job.path, job.journalMode);
  createTable(database);
  database.pragma('synchronous = OFF');
  const batch = database.prepare(
    'INSERT INTO item (body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT randomblob(?) FROM n',
  );
  for (let left = job.rowCount; left > 0; left -= 10_000) batch.run(Math.min(left, 10_000), job.rowBytes);
  database.close();
  return null;
}

function reads(job: Extract<Job, {kind: 'reads'}>): RateResult {
  const database = open(job.path);
  const statement = database.prepare('SELECT body FROM item WHERE id = ?');
  let seed = 1;
  const result = rateOf(job.durationMs, () => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    if (statement.get(1 + (seed % job.rowCount)) === undefined)
      throw new Error(`Cannot read row ${1 + (seed % job.rowCount)}: there is none`);
  });
  database.close();
  return result;
}

/** Commits one row after another until it is stopped, at a pace or as fast as it can. Errors are counted, not thrown. */
async function writeOn(job: Extract<Job, {kind: 'write-on'}>): Promise<WriterResult> {
  const database = open(job.path, 'WAL', 'NORMAL');
  database.exec('CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, body BLOB)');
  const statement = database.prepare('INSERT INTO entry (body) VALUES (?)');
  const errors: string[] = [];
  const committedAtMs: number[] = [];
  const intervalMs = job.perSecond === UNPACED ? 0 : 1000 / job.perSecond;
  let firstId = 0;
  let [commitCount, pauseMaxMs, commitMaxMs] = [0, 0, 0];
  say({type: 'ready'});
  const start = monotonicMs();
  for (let at = start, last = start, due = start; !state.isStopped; ) {
    try {
      const {lastInsertRowid} = statement.run(ROW);
      if (commitCount++ === 0) firstId = Number(lastInsertRowid);
    } catch (error) {
      if (errors.length < ERROR_COUNT_MAX) errors.push(String(error));
      await sleep(1); // A mount that is gone fails at once, again and again.
    }
    const now = monotonicMs();
    if (committedAtMs.length < TIMES_COUNT_MAX) committedAtMs.push(now);
    commitMaxMs = Math.max(commitMaxMs, now - at);
    pauseMaxMs = Math.max(pauseMaxMs, now - last - intervalMs);
    last = now;
    due = Math.max(due + intervalMs, now - 1000);
    if (due > now) await sleep(due - now);
    else if (commitCount % 16 === 0) await turn();
    at = monotonicMs();
  }
  const elapsedMs = monotonicMs() - start;
  database.close();
  return {
    commitCount,
    elapsedMs,
    errors,
    firstId,
    committedAtMs: intervalMs === 0 ? [] : committedAtMs,
    pauseMaxMs,
    commitMaxMs,
  };
}

/** Reads `sqlite_master` at a pace: an app that has the follower's database open and uses it. */
async function readOn(job: Extract<Job, {kind: 'read-on'}>): Promise<null> {
  const database = open(job.path);
  const statement = database.prepare('SELECT max(id) FROM item');
  say({type: 'ready'});
  while (!state.isStopped) {
    statement.get();
    await sleep(1000 / job.perSecond);
  }
  database.close();
  return null;
}

/** Looks for new rows of `entry` every tenth of a millisecond. */
async function watch(job: Extract<Job, {kind: 'watch'}>): Promise<WatchResult> {
  const database = open(job.path);
  const statement = database.prepare('SELECT max(id) FROM entry').pluck();
  const seenAtMs: number[] = [];
  let seen = Number(statement.get() ?? 0);
  const firstId = seen + 1;
  say({type: 'ready'});
  for (let turns = 0; !state.isStopped; turns++) {
    const newest = Number(statement.get() ?? 0);
    const now = monotonicMs();
    for (; seen < newest; seen++) seenAtMs.push(now);
    Atomics.wait(idle, 0, 0, WATCH_PAUSE_MS);
    if (turns % 256 === 0) await turn();
  }
  database.close();
  return {firstId, seenAtMs};
}

function vacuum(path: string): RateResult {
  const database = open(path);
  const start = performance.now();
  database.exec('VACUUM');
  const result = {perSecond: 1000 / (performance.now() - start)};
  database.close();
  return result;
}

function count(path: string): unknown {
  const database = open(path);
  const rowCount = database.prepare('SELECT count(*) FROM entry').pluck().get();
  const integrity = database.pragma('integrity_check', {simple: true});
  database.close();
  return {rowCount, integrity};
}

async function perform(job: Job): Promise<unknown> {
  switch (job.kind) {
    case 'insert':
      return insert(job);
    case 'bulk':
      return bulk(job);
    case 'fill':
      return fill(job);
    case 'reads':
      return reads(job);
    case 'write-on':
      return await writeOn(job);
    case 'read-on':
      return await readOn(job);
    case 'watch':
      return await watch(job);
    case 'vacuum':
      return vacuum(job.path);
    case 'count':
      return count(job.path);
  }
}

function say(message: Message): void {
  process.send?.(message);
}

async function main(job: Job): Promise<void> {
  process.on('message', () => {
    state.isStopped = true;
  });
  process.once('disconnect', () => process.exit(0)); // Whoever measures is gone, or has the result.
  try {
    say({type: 'done', result: await perform(job)});
  } catch (error) {
    say({type: 'failed', text: error instanceof Error ? (error.stack ?? error.message) : String(error)});
  }
  process.disconnect();
}

await main(JSON.parse(process.argv[2] ?? '') as Job);
