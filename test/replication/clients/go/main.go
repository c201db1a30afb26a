// SQLite compiled to WebAssembly, with a file layer of its own in Go: its locks are OFD locks, its -shm is mapped by Go.
// "write PATH" does the work, "read PATH" answers each line of SQL on one connection.
package main

import (
	"bufio"
	"bytes"
	"os"
	"time"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"
)

type client struct {
	connection *sqlite3.Conn
}

func main() {
	connection, err := sqlite3.Open(os.Args[2])
	check(err)
	c := client{connection}
	check(connection.BusyTimeout(20 * time.Second))
	if os.Args[1] == "write" {
		c.write()
		os.Stdout.WriteString(c.ask("select sqlite_version()") + "\n")
	} else {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			os.Stdout.WriteString(c.ask(lines.Text()) + "\n")
		}
	}
	check(connection.Close())
}

func (c client) write() {
	c.execute("pragma cache_size=10")
	c.execute("pragma journal_mode=delete")
	c.execute("create table t(id integer primary key, n integer, v blob)")
	c.execute("create index tn on t(n)")
	for i := range 50 {
		c.insert(i, make([]byte, i*40))
	}
	transaction := c.connection.Begin()
	for i := range 3000 {
		c.insert(1000+i, bytes.Repeat([]byte{byte(i % 251)}, 200))
	}
	check(transaction.Commit())
	transaction = c.connection.Begin()
	c.execute("update t set v=randomblob(500)")
	check(transaction.Rollback())
	c.insert(-1, bytes.Repeat([]byte{7}, 300_000))
	c.execute("pragma journal_mode=wal")
	for i := range 50 {
		c.insert(10_000+i, make([]byte, 100))
	}
	transaction = c.connection.Begin()
	c.execute("update t set v=randomblob(1000)")
	check(transaction.Rollback())
	transaction = c.connection.Begin()
	c.execute("delete from t where n between 2000 and 3499")
	check(transaction.Commit())
	c.execute("vacuum")
	c.execute("pragma journal_mode=delete")
	c.insert(20_000, []byte("rollback journal"))
	c.execute("vacuum")
	c.execute("pragma journal_mode=wal")
	c.insert(30_000, []byte("write-ahead log"))
}

func (c client) execute(sql string) {
	check(c.connection.Exec(sql))
}

func (c client) insert(n int, blob []byte) {
	statement, _, err := c.connection.Prepare("insert into t(n, v) values(?, ?)")
	check(err)
	check(statement.BindInt(1, n))
	check(statement.BindBlob(2, blob))
	check(statement.Exec())
	check(statement.Close())
}

func (c client) ask(sql string) string {
	statement, _, err := c.connection.Prepare(sql)
	check(err)
	defer statement.Close()
	if !statement.Step() {
		check(statement.Err())
		return ""
	}
	return statement.ColumnText(0)
}

func check(err error) {
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
