import {mkdirSync, renameSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import fc from 'fast-check';
import {afterEach, beforeEach, expect, test} from 'vitest';
import {
  type DirectoryEntry,
  orderEntries,
  packDirectory,
} from '../../../src/engine/mount/directory-listing.ts';
import {InodeTable} from '../../../src/engine/mount/inode-table.ts';
import {World} from './world.ts';

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.close());

function listingOf(names: readonly string[]): readonly DirectoryEntry[] {
  return orderEntries(
    names.map((name, i) => ({name: Buffer.from(name), ino: 100 + i, type: 8})),
    50,
    1,
  );
}

/** Reads struct fuse_dirent:  0 ino u64 | 8 off u64 | 16 namelen u32 | 20 type u32 | 24 name, padded to 8. */
function unpack(bytes: Buffer): {name: string; ino: number; type: number; cookie: number}[] {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const size = bytes.readUInt32LE(at + 16);
    const name = bytes.toString('utf8', at + 24, at + 24 + size);
    found.push({
      name,
      ino: Number(bytes.readBigUInt64LE(at)),
      type: bytes.readUInt32LE(at + 20),
      cookie: Number(bytes.readBigUInt64LE(at + 8)),
    });
    expect(bytes.subarray(at + 24 + size, at + ((24 + size + 7) & ~7)).every(byte => byte === 0)).toBe(true);
    at += (24 + size + 7) & ~7;
  }
  return found;
}

test('packDirectory() writes struct fuse_dirent', () => {
  const target = Buffer.alloc(4096, 0xee);
  const used = packDirectory(target, listingOf(['größe']), 0);
  const [dot, dots, file] = unpack(target.subarray(0, used));
  expect([dot, dots]).toEqual([
    {name: '.', ino: 50, type: 4, cookie: 1},
    {name: '..', ino: 1, type: 4, cookie: 2},
  ]);
  expect(file).toMatchObject({name: 'größe', ino: 100, type: 8});
  expect(used).toBe(32 + 32 + 32);
});

test('pieces of any size give every entry once, in one order', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.stringMatching(/^[a-zäß]{1,12}$/), {maxLength: 60}),
      fc.integer({min: 80, max: 700}),
      (names, size) => {
        const entries = listingOf(names);
        const seen: string[] = [];
        let cookie = 0;
        for (let pieces = 0; pieces <= names.length + 3; pieces++) {
          const target = Buffer.alloc(size);
          const part = unpack(target.subarray(0, packDirectory(target, entries, cookie)));
          if (part.length === 0) break;
          seen.push(...part.map(entry => entry.name));
          cookie = part.at(-1)?.cookie ?? 0;
        }
        expect(seen.slice(0, 2)).toEqual(['.', '..']);
        expect(seen.slice(2).sort()).toEqual([...names].sort());
      },
    ),
  );
});

test('cookies grow, differ, are exact numbers, and belong to the name', () => {
  const names = Array.from({length: 30_000}, (_, i) => `file-${i}`);
  const entries = listingOf(names);
  const last = entries.at(-1)?.cookie ?? 0;
  expect(entries.every(({cookie}, i) => i === 0 || cookie > (entries[i - 1]?.cookie ?? 0))).toBe(true);
  expect(Number.isSafeInteger(last)).toBe(true);
  const some = new Map(listingOf(names.slice(500, 900)).map(entry => [String(entry.name), entry.cookie]));
  const same = entries.filter(entry => some.get(String(entry.name)) === entry.cookie);
  expect(same.length).toBe(some.size);
});

test('entries with the same name twice, or names that the mount refuses, do no harm', () => {
  const entries = orderEntries(
    [...['a', 'a', '.', '..'].map(Buffer.from), Buffer.from([0xff])].map(name => ({
      name: Buffer.from(name),
      ino: 5,
      type: 8,
    })),
    1,
    1,
  );
  expect(entries.map(entry => entry.name.toString())).toEqual(['.', '..', 'a', 'a']);
  expect(new Set(entries.map(entry => entry.cookie)).size).toBe(4);
});

test('a listing is read again from the start only, and several folders may be read at once', () => {
  const {listings, inodes} = world.context;
  for (let i = 0; i < 12; i++) mkdirSync(join(world.files, `d${i}`));
  const folders = Array.from({length: 12}, (_, i) =>
    inodes.put(inodes.root, `d${i}`, inodes.inoAt(`d${i}`) ?? 0, true),
  );
  for (const folder of folders) expect(listings.read(folder, 0)).toHaveLength(2);
  for (const folder of folders) writeFileSync(join(world.files, folder.name, 'new'), '');
  for (const folder of folders.slice(-8)) expect(listings.read(folder, 1)).toHaveLength(2);
  expect(listings.read(folders[0] ?? inodes.root, 1)).toHaveLength(3); // No longer kept: read again.
  expect(listings.read(folders.at(-1) ?? inodes.root, 0)).toHaveLength(3);
});

test('InodeTable.get() finds what an earlier daemon had told the kernel of, where it is now', () => {
  mkdirSync(join(world.files, 'a/b/c'), {recursive: true});
  writeFileSync(join(world.files, 'a/b/c/app.db-wal'), '');
  writeFileSync(Buffer.concat([Buffer.from(join(world.files, 'a/')), Buffer.from([0xff, 0xfe])]), '');
  const before = new InodeTable(world.files, world.hidden);
  const ino = before.inoAt('a/b/c/app.db-wal') ?? 0;
  renameSync(join(world.files, 'a/b'), join(world.files, 'x'));
  const inode = new InodeTable(world.files, world.hidden).get(ino);
  expect(inode).toMatchObject({name: 'app.db-wal', role: 'wal', isDirectory: false, isHidden: false});
  expect(inode && before.relativePath(inode)).toBe('x/c/app.db-wal');
  expect(before.get(2 ** 50)).toBeUndefined();
});
