# Python's own module. "write PATH" does the work, "read PATH" answers each line of SQL on one connection.
import sqlite3
import sys

command, path = sys.argv[1:]
connection = sqlite3.connect(path, isolation_level=None, timeout=20)


def insert(n, blob):
    connection.execute('insert into t(n, v) values(?, ?)', (n, blob))


def write():
    connection.execute('pragma cache_size=10')
    connection.execute('pragma journal_mode=delete')
    connection.execute('create table t(id integer primary key, n integer, v blob)')
    connection.execute('create index tn on t(n)')
    for i in range(50):
        insert(i, bytes(i * 40))
    connection.execute('begin')
    for i in range(3000):
        insert(1000 + i, bytes([i % 251]) * 200)
    connection.execute('commit')
    connection.execute('begin')
    connection.execute('update t set v=randomblob(500)')
    connection.execute('rollback')
    insert(-1, bytes([7]) * 300_000)
    connection.execute('pragma journal_mode=wal')
    for i in range(50):
        insert(10_000 + i, bytes(100))
    connection.execute('begin')
    connection.execute('update t set v=randomblob(1000)')
    connection.execute('rollback')
    connection.execute('begin')
    connection.execute('delete from t where n between 2000 and 3499')
    connection.execute('commit')
    connection.execute('vacuum')
    connection.execute('pragma journal_mode=delete')
    insert(20_000, b'rollback journal')
    connection.execute('vacuum')
    connection.execute('pragma journal_mode=wal')
    insert(30_000, b'write-ahead log')


if command == 'write':
    write()
    print(sqlite3.sqlite_version)
else:
    for line in sys.stdin:
        print(connection.execute(line).fetchone()[0], flush=True)
connection.close()
