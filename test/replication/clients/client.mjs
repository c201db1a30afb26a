// better-sqlite3. "write PATH" does the work, "read PATH" answers each line of SQL on one connection.
import {createInterface} from 'node:readline';
import Database from 'better-sqlite3';

const [command, path] = process.argv.slice(2);
const database = new Database(path, {timeout: 20_000});

function write() {
  database.pragma('cache_size = 10');
  database.pragma('journal_mode = delete');
  database.exec('create table t(id integer primary key, n integer, v blob); create index tn on t(n)');
  const statement = database.prepare('insert into t(n, v) values(?, ?)');
  const insert = (n, blob) => statement.run(n, blob);
  for (let i = 0; i < 50; i++) insert(i, Buffer.alloc(i * 40));
  database.transaction(() => {
    for (let i = 0; i < 3000; i++) insert(1000 + i, Buffer.alloc(200, i % 251));
  })();
  rollBack('update t set v=randomblob(500)');
  insert(-1, Buffer.alloc(300_000, 7));
  database.pragma('journal_mode = wal');
  for (let i = 0; i < 50; i++) insert(10_000 + i, Buffer.alloc(100));
  rollBack('update t set v=randomblob(1000)');
  database.transaction(() => database.exec('delete from t where n between 2000 and 3499'))();
  database.exec('vacuum');
  database.pragma('journal_mode = delete');
  insert(20_000, Buffer.from('rollback journal'));
  database.exec('vacuum');
  database.pragma('journal_mode = wal');
  insert(30_000, Buffer.from('write-ahead log'));
}

function rollBack(sql) {
  database.exec('begin');
  database.exec(sql);
  database.exec('rollback');
}

if (command === 'write') {
  write();
  console.log(database.prepare('select sqlite_version()').pluck().get());
} else {
  for await (const line of createInterface({input: process.stdin})) {
    console.log(database.prepare(line).pluck().get());
  }
}
database.close();
