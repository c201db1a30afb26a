"""usage: visitor.py write|read DATABASE

Visits random cities, or reads about them, in small transactions until SIGTERM; prints its running total.
"""

import random
import signal
import sqlite3
import sys
import time

BUSY_S = 10
WRITE_PAUSE_S = 0.02
READ_BURST_S = 0.01
READ_PAUSE_S = 0.04

action, path = sys.argv[1:]
database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
(city_count,) = database.execute("SELECT max(id) FROM city").fetchone()
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))


def write():
    city = random.randint(1, city_count)
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO visit (city, visitor) VALUES (?, 'python')", (city,))
    database.execute("UPDATE city SET visits = visits + 1 WHERE id = ?", (city,))
    database.execute("UPDATE tally SET visits = visits + 1")
    database.execute("COMMIT")
    return 1


def read():
    end = time.monotonic() + READ_BURST_S
    query = "SELECT (SELECT visits FROM tally) = (SELECT coalesce(max(id), 0) FROM visit)"
    if database.execute(query).fetchone() != (1,):
        sys.exit("Cannot trust the snapshot: a visit was counted in one place only")
    count = 1
    while time.monotonic() < end:
        city = random.randint(1, city_count)
        database.execute("SELECT name, country, visits FROM city WHERE id = ?", (city,)).fetchone()
        count += 1
    return count


step, pause = (write, WRITE_PAUSE_S) if action == "write" else (read, READ_PAUSE_S)
total = 0
while not stopping:
    total += step()
    print(total, flush=True)
    time.sleep(pause)
database.close()
