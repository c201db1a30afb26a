-- A guest book of cities. Every visit also counts in two other places, in the same transaction, so that a reader
-- can tell a torn snapshot from a whole one.
CREATE TABLE city (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  region TEXT NOT NULL,
  country TEXT NOT NULL,
  latitude REAL NOT NULL,
  longitude REAL NOT NULL,
  visits INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX city_name ON city (name);
CREATE TABLE visit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  city INTEGER NOT NULL REFERENCES city (id),
  visitor TEXT NOT NULL,
  at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE TABLE tally (id INTEGER PRIMARY KEY CHECK (id = 1), visits INTEGER NOT NULL);
INSERT INTO tally VALUES (1, 0);
