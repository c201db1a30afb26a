import {type BigIntStats, lstatSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import type {Catalog} from '../catalog.ts';
import {isDatabaseName} from '../mount/names.ts';
import type {FileIdentity, Seals} from './seal.ts';

/** A database whose file is not where the catalog says. */
export interface MissingDatabase {
  readonly id: string;
  readonly name: string;
  /** Where its file is now, or undefined when it is nowhere. */
  readonly newName: string | undefined;
}

interface Lost {
  readonly id: string;
  readonly name: string;
  readonly identity: FileIdentity;
}

/**
 * Finds the databases whose file was deleted or renamed without the catalog knowing: a daemon died in the middle, or
 * somebody did it while none ran. Looks only for files that this node has written as a primary: a follower has databases
 * that never had one. Asks for one file per database, and walks the folders only if one is not there.
 */
export function findMissing(catalog: Catalog, seals: Seals, filesDirectory: string): MissingDatabase[] {
  const lost: Lost[] = [];
  for (const [id, name] of catalog.entries()) {
    if (lstatSync(join(filesDirectory, name), {throwIfNoEntry: false}) !== undefined) continue;
    const identity = seals.identity(id);
    if (identity !== undefined) lost.push({id, name, identity});
  }
  if (lost.length === 0) return [];
  const names = searchFiles(filesDirectory, lost);
  return lost.map(({id, name}) => ({id, name, newName: names.get(id)}));
}

/** Names of the files that may be databases and that the catalog doesn't know. */
export function findUnlisted(catalog: Catalog, filesDirectory: string): string[] {
  return [...walk(filesDirectory)].filter(path => catalog.idOf(path) === undefined);
}

function searchFiles(filesDirectory: string, lost: readonly Lost[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const path of walk(filesDirectory)) {
    const stats = lstatSync(join(filesDirectory, path), {bigint: true, throwIfNoEntry: false});
    const id = stats === undefined ? undefined : ownerOf(stats, lost);
    if (id !== undefined) found.set(id, path);
  }
  return found;
}

/** The files whose names may be those of databases, as paths from `filesDirectory`. */
function* walk(filesDirectory: string): Generator<string> {
  const folders = [''];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const entry of readdirSync(join(filesDirectory, folder), {withFileTypes: true})) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) folders.push(path);
      else if (entry.isFile() && isDatabaseName(path)) yield path;
    }
  }
}

function ownerOf(stats: BigIntStats, lost: readonly Lost[]): string | undefined {
  return lost.find(({identity}) => identity.isOf(stats))?.id;
}
