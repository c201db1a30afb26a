#!/bin/sh
# usage: visitor.sh write|read DATABASE
# Visits random cities, or reads about them, with the sqlite3 shell until SIGTERM; prints its running total.
set -u
action=$1
database=$2
reads_per_run=200
stopping=0
trap 'stopping=1' TERM

random_city='(SELECT 1 + abs(random()) % (SELECT max(id) FROM city))'

write_sql() {
  cat <<SQL
BEGIN IMMEDIATE;
INSERT INTO visit (city, visitor) VALUES ($random_city, 'sqlite3');
UPDATE city SET visits = visits + 1 WHERE id = (SELECT city FROM visit ORDER BY id DESC LIMIT 1);
UPDATE tally SET visits = visits + 1;
COMMIT;
SQL
}

read_sql() {
  echo 'SELECT (SELECT visits FROM tally) = (SELECT coalesce(max(id), 0) FROM visit);'
  count=1
  while [ "$count" -lt "$reads_per_run" ]; do
    echo "SELECT name, country, visits FROM city WHERE id = $random_city;"
    count=$((count + 1))
  done
}

total=0
case $action in
write)
  statements=$(write_sql)
  rows_per_run=1
  ;;
read)
  statements=$(read_sql)
  rows_per_run=$reads_per_run
  ;;
esac
while [ $stopping = 0 ]; do
  answer=$(printf '%s\n' "$statements" | sqlite3 -batch -bail -cmd '.timeout 10000' "$database") || exit 1
  if [ "$action" = read ] && [ "${answer%%[!0-9]*}" != 1 ]; then
    echo 'Cannot trust the snapshot: a visit was counted in one place only' >&2
    exit 1
  fi
  total=$((total + rows_per_run))
  echo "$total"
  sleep 0.2
done
