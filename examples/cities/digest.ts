import {createHash} from 'node:crypto';
import Database from 'better-sqlite3';

// usage: digest.js DATABASE
// Reads all of the database and prints, as one line of JSON, what has to be the same on every node.

const [path = ''] = process.argv.slice(2);
const database = new Database(path, {fileMustExist: true, timeout: 10_000});
const readAll = database.transaction(() => {
  const integrity = database.pragma('integrity_check', {simple: true});
  const tally = database.prepare('SELECT visits FROM tally').pluck().get();
  const counted = database.prepare('SELECT sum(visits) FROM city').pluck().get();
  const counts: Record<string, number> = {};
  const hash = createHash('sha256');
  for (const table of ['city', 'visit', 'tally']) {
    counts[table] = 0;
    for (const row of database.prepare(`SELECT * FROM ${table} ORDER BY id`).raw().iterate()) {
      hash.update(`${JSON.stringify(row)}\n`);
      counts[table]++;
    }
  }
  const isConsistent = tally === counts.visit && counted === counts.visit;
  return {integrity, isConsistent, counts, hash: hash.digest('hex')};
});
console.log(JSON.stringify(readAll()));
database.close();
