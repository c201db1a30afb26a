import Database from 'better-sqlite3';
import type {PageTransaction} from '../../../../src/engine/apply/page-transaction.ts';

/** Random numbers that a seed repeats (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/**
 * A database that real SQLite writes, and its transactions as pages: what changed between two serialised
 * states.
 */
export class Primary {
  readonly database: Database.Database;
  readonly #random: () => number;
  #bytes: Uint8Array = new Uint8Array(0);
  #version = 0;

  constructor(path: string, seed: number, pragmas: readonly string[] = []) {
    this.database = new Database(path);
    this.#random = seededRandom(seed);
    for (const pragma of pragmas) this.database.pragma(pragma);
    this.database.exec(`
      BEGIN;
      CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, memo BLOB);
      CREATE TABLE stamp(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, filler BLOB);
      CREATE TABLE version(v INTEGER NOT NULL);
      CREATE TABLE bulk(id INTEGER PRIMARY KEY, content BLOB);
      CREATE INDEX account_balance ON account(balance);
      INSERT INTO version VALUES (0);
      WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
        INSERT INTO account SELECT i, 0, randomblob(100) FROM n;
      WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
        INSERT INTO stamp SELECT i, 0, randomblob(300) FROM n;
      COMMIT;`);
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  get version(): number {
    return this.#version;
  }

  /** What has changed since the last call. */
  capture(): PageTransaction {
    const before = this.#bytes;
    this.#bytes = new Uint8Array(this.database.serialize());
    return difference(before, this.#bytes);
  }

  /** Commits one random transaction that keeps what readers check, and returns its pages. */
  step(): PageTransaction {
    this.#version++;
    const pick = (n: number) => this.#random() % n;
    this.database.exec('BEGIN');
    for (let i = pick(8); i >= 0; i--) {
      const amount = pick(1000);
      const move = this.database.prepare('UPDATE account SET balance = balance + ? WHERE id = ?');
      move.run(amount, 1 + pick(60));
      move.run(-amount, 1 + pick(60));
    }
    this.database.prepare('UPDATE stamp SET v = ?').run(this.#version);
    this.database.prepare('UPDATE version SET v = ?').run(this.#version);
    if (pick(3) === 0) this.#changeBulk(pick);
    this.database.exec('COMMIT');
    return this.capture();
  }

  #changeBulk(pick: (n: number) => number): void {
    if (pick(4) === 0) this.database.prepare('DELETE FROM bulk WHERE id % 3 = ?').run(pick(3));
    else this.database.prepare('INSERT INTO bulk(content) VALUES (randomblob(?))').run(pick(30_000));
  }

  close(): void {
    this.database.close();
  }
}

function pageSizeOf(bytes: Uint8Array): number {
  const packed = (bytes[16] << 8) | bytes[17];
  return packed === 1 ? 65_536 : packed;
}

export function difference(before: Uint8Array, after: Uint8Array): PageTransaction {
  const pageSize = pageSizeOf(after);
  const commit = after.length / pageSize;
  const isSameSize = before.length > 0 && pageSizeOf(before) === pageSize;
  const pgnos: number[] = [];
  for (let pgno = 1; pgno <= commit; pgno++) {
    const start = (pgno - 1) * pageSize;
    const page = after.subarray(start, start + pageSize);
    const old = isSameSize ? before.subarray(start, start + pageSize) : undefined;
    if (old === undefined || Buffer.compare(page, old) !== 0) pgnos.push(pgno);
  }
  const scratch = new Uint8Array(pageSize);
  return {
    pageSize,
    commit,
    pageCountHint: pgnos.length,
    *pages() {
      for (const pgno of pgnos) {
        // One view for all pages, as a decoder's.
        scratch.set(after.subarray((pgno - 1) * pageSize, pgno * pageSize));
        yield {pgno, page: scratch};
      }
      scratch.fill(0xee);
    },
  };
}
