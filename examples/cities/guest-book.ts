import Database from 'better-sqlite3';

export interface Visit {
  readonly id: number;
  readonly city: string;
  readonly country: string;
  readonly visitor: string;
  readonly at: string;
}

export interface City {
  readonly id: number;
  readonly name: string;
  readonly region: string;
  readonly country: string;
  readonly visits: number;
}

/** The application's database: plain SQLite, wherever the file lies. */
export class GuestBook {
  readonly #database: Database.Database;
  readonly #addVisit: (city: number, visitor: string) => number;

  /** `busyMs`: how long a statement waits for a lock before it fails with SQLITE_BUSY. */
  constructor(path: string, busyMs: number) {
    this.#database = new Database(path, {fileMustExist: true, timeout: busyMs});
    const insert = this.#database.prepare('INSERT INTO visit (city, visitor) VALUES (?, ?)');
    const countCity = this.#database.prepare('UPDATE city SET visits = visits + 1 WHERE id = ?');
    const countAll = this.#database.prepare('UPDATE tally SET visits = visits + 1');
    const transaction = this.#database.transaction((city: number, visitor: string) => {
      const {lastInsertRowid} = insert.run(city, visitor);
      countCity.run(city);
      countAll.run();
      return Number(lastInsertRowid);
    });
    this.#addVisit = transaction.immediate;
  }

  /** Writes one visit and returns its number. */
  addVisit(city: number, visitor: string): number {
    return this.#addVisit(city, visitor);
  }

  findCities(prefix: string): City[] {
    const select = this.#database.prepare<[string, string], City>(
      'SELECT id, name, region, country, visits FROM city WHERE name >= ? AND name < ? ORDER BY name LIMIT 20',
    );
    return select.all(prefix, `${prefix}\u{10ffff}`);
  }

  latestVisits(): Visit[] {
    const select = this.#database.prepare<[], Visit>(
      `SELECT visit.id, city.name AS city, city.country, visit.visitor, visit.at
       FROM visit JOIN city ON city.id = visit.city ORDER BY visit.id DESC LIMIT 20`,
    );
    return select.all();
  }

  cityCount(): number {
    return Number(this.#database.prepare('SELECT max(id) FROM city').pluck().get());
  }

  close(): void {
    this.#database.close();
  }
}
