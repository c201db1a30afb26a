import {setTimeout as sleep} from 'node:timers/promises';
import Database from 'better-sqlite3';

// usage: visitor.js write|read DATABASE
// Visits random cities, or reads about them, in small transactions until SIGTERM; prints its running total.

const BUSY_MS = 10_000;
const WRITE_PAUSE_MS = 8;
const READ_BURST_MS = 10;
const READ_PAUSE_MS = 40;

const [action, path = ''] = process.argv.slice(2);
const database = new Database(path, {fileMustExist: true, timeout: BUSY_MS});
const cityCount = Number(database.prepare('SELECT max(id) FROM city').pluck().get());
const randomCity = () => 1 + Math.floor(Math.random() * cityCount);
let isStopping = false;
process.once('SIGTERM', () => {
  isStopping = true;
});

function makeWriter(): () => number {
  const insert = database.prepare("INSERT INTO visit (city, visitor) VALUES (?, 'node')");
  const countCity = database.prepare('UPDATE city SET visits = visits + 1 WHERE id = ?');
  const countAll = database.prepare('UPDATE tally SET visits = visits + 1');
  const {immediate} = database.transaction((city: number) => {
    insert.run(city);
    countCity.run(city);
    countAll.run();
  });
  return () => {
    immediate(randomCity());
    return 1;
  };
}

function makeReader(): () => number {
  const select = database.prepare('SELECT name, country, visits FROM city WHERE id = ?');
  const isWhole = database.prepare(
    'SELECT (SELECT visits FROM tally) = (SELECT coalesce(max(id), 0) FROM visit)',
  );
  return () => {
    const endMs = performance.now() + READ_BURST_MS;
    let count = 1;
    if (isWhole.pluck().get() !== 1)
      throw new Error('Cannot trust the snapshot: a visit was counted in one place only');
    for (; performance.now() < endMs; count++) select.get(randomCity());
    return count;
  };
}

const step = action === 'write' ? makeWriter() : makeReader();
const pauseMs = action === 'write' ? WRITE_PAUSE_MS : READ_PAUSE_MS;
for (let total = 0; !isStopping; ) {
  total += step();
  process.stdout.write(`${total}\n`);
  await sleep(pauseMs);
}
database.close();
