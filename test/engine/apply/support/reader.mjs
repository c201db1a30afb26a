// An app that reads: checks in each read transaction that what it sees is one state, until its input ends.
// argv: database, kind ('short' | 'long' | 'reopen'), cache_size. Says "ready" once, and at the end one line of JSON.
import Database from 'better-sqlite3';

const [, , path, kind, cacheSize] = process.argv;
const result = {reads: 0, versionMax: 0, busy: 0, errors: []};
let isStopped = false;
process.stdin.on('end', () => {
  isStopped = true;
});
process.stdin.resume();

function open() {
  const database = new Database(path, {timeout: 10_000});
  database.pragma(`cache_size=${cacheSize}`);
  return database;
}

function snapshot(database) {
  const {sum} = database.prepare('SELECT sum(balance) AS sum FROM account').get();
  const {low, high} = database.prepare('SELECT min(v) AS low, max(v) AS high FROM stamp').get();
  const {v} = database.prepare('SELECT v FROM version').get();
  return {sum, low, high, v};
}

function check(state) {
  if (state.sum !== 0 || state.low !== state.v || state.high !== state.v) {
    result.errors.push(`mixed state ${JSON.stringify(state)}`);
  }
  // Versions only grow.
  if (state.v < result.versionMax) result.errors.push(`went back from ${result.versionMax} to ${state.v}`);
  result.versionMax = Math.max(result.versionMax, state.v);
}

function readOnce(database, isLong) {
  database.prepare('BEGIN').run();
  try {
    const first = snapshot(database);
    check(first);
    if (isLong) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 150);
      const second = snapshot(database);
      if (JSON.stringify(second) !== JSON.stringify(first))
        result.errors.push('a transaction saw two states');
    }
    if (result.reads % 50 === 0) {
      const answer = database.pragma('integrity_check', {simple: true});
      if (answer !== 'ok') result.errors.push(`integrity_check: ${answer}`);
    }
  } finally {
    database.prepare('COMMIT').run();
  }
  result.reads++;
}

let database = open();
process.stdout.write('ready\n');

function turn() {
  try {
    if (kind === 'reopen') {
      database.close();
      database = open();
    }
    readOnce(database, kind === 'long');
  } catch (error) {
    if (error.code?.startsWith('SQLITE_BUSY')) result.busy++;
    else result.errors.push(`${error.code} ${error.message}`);
  }
  if (isStopped || result.errors.length > 5) {
    database.close();
    process.stdout.write(`${JSON.stringify(result)}\n`);
    process.exit(0);
  }
  setImmediate(turn);
}
turn();
