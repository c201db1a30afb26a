// An app: opens the database named first and runs the SQL in the other arguments. With "hold" first among them it then waits to be killed.
import Database from 'better-sqlite3';

const [path, ...statements] = process.argv.slice(2);
const holds = statements[0] === 'hold';
const database = new Database(path, {timeout: 5000});
for (const sql of holds ? statements.slice(1) : statements) {
  if (/^pragma/i.test(sql)) database.pragma(sql.replace(/^pragma\s+/i, ''));
  else database.exec(sql);
}
process.stdout.write('done\n');
if (holds) setInterval(() => undefined, 1000);
else database.close();
