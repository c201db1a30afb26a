import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import fc from 'fast-check';
import {afterEach, beforeEach, describe, expect, test} from 'vitest';
import {DirtyPages} from '../../src/engine/capture/dirty-pages.ts';
import {hasWriteLock} from '../../src/engine/capture/file-locks.ts';
import {PageCursor} from '../../src/engine/capture/page-cursor.ts';
import {journalPageSize, pagesOfCommit} from '../../src/engine/capture/plans.ts';
import type {Slices} from '../../src/engine/capture/record-job.ts';
import {Seals} from '../../src/engine/capture/seal.ts';
import {Catalog} from '../../src/engine/catalog.ts';
import {Disk} from '../../src/lib/disk.ts';
import {toChecksum, toTxid} from '../../src/ltx/position.ts';
import {decodeDirtyList} from '../../src/verify/dirty-list.ts';

const disk = new Disk();
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ferrite-capture-'));
});
afterEach(() => {
  rmSync(folder, {recursive: true});
});

function finish<Result>(slices: Slices<Result>): Result {
  for (;;) {
    const next = slices.next();
    if (next.done === true) return next.value;
  }
}

type Step =
  | {readonly kind: 'add'; readonly first: number; readonly count: number}
  | {readonly kind: 'clear'}
  | {readonly kind: 'unknown'}
  | {readonly kind: 'pending'; readonly txid: bigint};

function apply(
  step: Step,
  dirty: DirtyPages,
  model: {pages: Set<number>; isUnknown: boolean; pending: bigint},
): void {
  switch (step.kind) {
    case 'add':
      dirty.add(step.first, step.count);
      if (model.isUnknown) return;
      for (let i = 0; i < step.count; i++) model.pages.add(step.first + i);
      return;
    case 'unknown':
      dirty.addUnknown();
      model.isUnknown = true;
      model.pages.clear();
      return;
    case 'pending':
      dirty.setPending(step.txid);
      model.pending = step.txid;
      return;
    case 'clear':
      dirty.clear();
      model.pages.clear();
      model.isUnknown = false;
      model.pending = 0n;
  }
}

describe('DirtyPages', () => {
  test('open() finds what was added since the last clear(), whatever happened before', () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('add' as const),
        first: fc.integer({min: 1, max: 30}),
        count: fc.integer({min: 1, max: 5}),
      }),
      fc.constant({kind: 'clear' as const}),
      fc.constant({kind: 'unknown' as const}),
      fc.record({kind: fc.constant('pending' as const), txid: fc.bigInt({min: 1n, max: 99n})}),
      fc.constant({kind: 'reopen' as const}),
    );
    let run = 0;
    fc.assert(
      fc.property(fc.array(step, {maxLength: 40}), steps => {
        const path = join(folder, `dirty-${run++}`);
        let dirty = DirtyPages.open(disk, path);
        const model = {pages: new Set<number>(), isUnknown: false, pending: 0n};
        for (const next of [...steps, {kind: 'reopen' as const}]) {
          if (next.kind === 'reopen') {
            dirty.close();
            dirty = DirtyPages.open(disk, path);
          } else apply(next, dirty, model);
        }
        const {pages, isUnknown, pending} = model;
        expect([...dirty.pages()].sort((a, b) => a - b)).toEqual([...pages].sort((a, b) => a - b));
        expect([dirty.isUnknown, dirty.pendingTxid]).toEqual([isUnknown, pending]);
        expect(dirty.isAny).toBe(isUnknown || pages.size > 0);
        dirty.close();
      }),
      {numRuns: 150},
    );
  });

  test('open() knows that a full list may lack pages, and too many pages are not remembered one by one', () => {
    const path = join(folder, 'dirty');
    const recordCount = 1 << 20;
    const bytes = Buffer.alloc(16 + recordCount * 12);
    bytes.writeUInt32LE(1, 0);
    for (let at = 16; at < bytes.length; at += 12)
      for (const [field, value] of [1, 7, 1].entries()) bytes.writeUInt32LE(value, at + 4 * field);
    for (const [missing, isFull] of [
      [12, false],
      [0, true],
    ] as const) {
      writeFileSync(path, bytes.subarray(0, bytes.length - missing));
      const dirty = DirtyPages.open(disk, path);
      expect(dirty.isUnknown).toBe(isFull);
      expect(decodeDirtyList(readFileSync(path)).isUnknown).toBe(isFull);
      dirty.clear();
      expect(dirty.isAny).toBe(false);
      dirty.add(1, 1 << 25);
      expect([dirty.isUnknown, dirty.count]).toEqual([true, 0]);
      dirty.close();
      const again = DirtyPages.open(disk, path);
      expect(again.isUnknown).toBe(true);
      again.close();
    }
  });

  test('open() ignores a record that was cut short', () => {
    const path = join(folder, 'dirty');
    const dirty = DirtyPages.open(disk, path);
    dirty.add(3, 2);
    dirty.add(9, 1);
    dirty.close();
    truncateSync(path, statSync(path).size - 1);
    const again = DirtyPages.open(disk, path);
    expect([...again.pages()]).toEqual([3, 4]);
    again.close();
  });
});

describe('Catalog', () => {
  const id = (n: number) => n.toString(16).padStart(32, '0');
  const position = {txid: toTxid(5n), checksum: toChecksum((1n << 63n) | 9n)};

  test('open() finds names, summaries and dropped databases again, and ignores a torn last line', () => {
    const path = join(folder, 'catalog');
    const catalog = Catalog.open(disk, path);
    catalog.set(id(1), 'a.db');
    catalog.set(id(2), 'folder/b.db');
    catalog.set(id(1), 'c.db');
    catalog.summarize(id(2), {position, term: 3n, pageSize: 4096, commit: 7});
    catalog.drop(id(1));
    catalog.set(id(3), 'a.db');
    catalog.close();
    const whole = readFileSync(path);
    appendFileSync(path, '{"id":"0000000');
    const again = Catalog.open(disk, path);
    expect([...again.entries()]).toEqual([
      [id(2), 'folder/b.db'],
      [id(3), 'a.db'],
    ]);
    expect([...again.dropped]).toEqual([id(1)]);
    expect([again.idOf('a.db'), again.idOf('c.db'), again.nameOf(id(2))]).toEqual([
      id(3),
      undefined,
      'folder/b.db',
    ]);
    expect(again.summaryOf(id(2))).toEqual({position, term: 3n, pageSize: 4096, commit: 7});
    again.close();
    expect(readFileSync(path)).toEqual(whole);
  });

  test('open() after every truncation knows a beginning of the history', () => {
    const path = join(folder, 'catalog');
    const catalog = Catalog.open(disk, path);
    for (let n = 1; n <= 4; n++) catalog.set(id(n), `${n}.db`);
    catalog.close();
    const bytes = readFileSync(path);
    for (let size = 0; size <= bytes.length; size++) {
      writeFileSync(path, bytes.subarray(0, size));
      const cut = Catalog.open(disk, path);
      expect(cut.count).toBe(bytes.subarray(0, size).filter(byte => byte === 0x0a).length);
      cut.close();
    }
  });

  test('open() refuses what is no line of it', () => {
    for (const line of [
      'nonsense',
      '{"id":"12"}',
      `{"id":"${id(1)}","name":"../up"}`,
      `{"id":"${id(1)}","name":"a.db-wal"}`,
    ]) {
      writeFileSync(join(folder, 'catalog'), `${line}\n`);
      expect(() => Catalog.open(disk, join(folder, 'catalog'))).toThrow(
        expect.objectContaining({code: 'CATALOG_CORRUPT'}),
      );
    }
  });

  test('open() rewrites a catalog of many changes and loses nothing', () => {
    const path = join(folder, 'catalog');
    const catalog = Catalog.open(disk, path);
    for (let n = 0; n < 3000; n++) catalog.set(id(n % 10), `${n}.db`);
    catalog.close();
    const before = statSync(path).size;
    const again = Catalog.open(disk, path);
    expect(statSync(path).size).toBeLessThan(before / 10);
    again.set(id(11), 'x.db');
    again.close();
    const last = Catalog.open(disk, path);
    expect(last.count).toBe(11);
    expect(last.nameOf(id(3))).toBe('2993.db');
    last.close();
  });
});

describe('Seals', () => {
  test('leftBehind() tells a database that was closed from one that was in use or touched', () => {
    const path = join(folder, 'a.db');
    writeFileSync(path, 'content');
    mkdirSync(join(folder, 'databases', 'x'), {recursive: true});
    const epoch = {boot: 'b1', run: 'r1'};
    const seals = new Seals(folder, epoch);
    expect(seals.leftBehind('x', path)).toBe('unknown');
    seals.open('x', path, false);
    expect(seals.active()).toEqual(['x']);
    expect(new Seals(folder, epoch).leftBehind('x', path)).toBe('unknown');
    seals.open('x', path, true);
    expect(new Seals(folder, epoch).leftBehind('x', path)).toBe('daemon-died');
    expect(new Seals(folder, {...epoch, boot: 'b2'}).leftBehind('x', path)).toBe('unknown');
    expect(new Seals(folder, {...epoch, run: 'r2'}).leftBehind('x', path)).toBe('unknown');
    seals.close('x', path);
    expect(seals.active()).toEqual([]);
    expect(seals.leftBehind('x', path)).toBe('closed');
    writeFileSync(`${path}-wal`, 'x');
    expect(seals.leftBehind('x', path)).toBe('unknown');
    rmSync(`${path}-wal`);
    writeFileSync(path, 'CONTENT');
    expect(seals.leftBehind('x', path)).toBe('unknown');
  });
});

describe('plans', () => {
  test('PageCursor goes through all pages once, ascending, with the last frame of each', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({min: 1, max: 4000}), {maxLength: 300}),
        fc.array(fc.integer({min: 1, max: 4000}), {maxLength: 20}),
        fc.integer({min: 1, max: 200}),
        (pgnos, extra, repeat) => {
          const many = Array.from({length: repeat}, () => pgnos).flat();
          const cursor = new PageCursor();
          finish(cursor.add(extra));
          finish(cursor.add(many, 7));
          cursor.advance();
          const frames = new Map<number, number>(extra.map(pgno => [pgno, -1]));
          for (const [index, pgno] of many.entries()) frames.set(pgno, 7 + index);
          const found: [number, number][] = [];
          for (; cursor.pgno !== Number.POSITIVE_INFINITY; cursor.advance())
            found.push([cursor.pgno, cursor.frame]);
          expect(found).toEqual([...frames].sort(([a], [b]) => a - b));
        },
      ),
      {numRuns: 60},
    );
  });

  test('pagesOfCommit() yields changed pages and all that are new, but neither the lock page nor what was cut off', () => {
    const pages = (changed: number[], countBefore: number, commit: number, lockPgno: number) => [
      ...pagesOfCommit(finish(PageCursor.over(changed)), countBefore, commit, lockPgno),
    ];
    expect(pages([5, 2, 9, 2], 6, 8, 100)).toEqual([2, 5, 7, 8]);
    expect(pages([5, 2, 9], 9, 4, 100)).toEqual([2]);
    expect(pages([3, 4], 4, 6, 5)).toEqual([3, 4, 6]);
    expect(pages([1, 2, 3], 3, 3, 2)).toEqual([1, 3]);
    expect(pages([], 0, 0, 2)).toEqual([]);
  });

  test('journalPageSize() believes a journal header, and one that was zeroed but for its sizes', () => {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(8192, 24);
    expect(journalPageSize(header)).toBe(8192);
    header.writeUInt32BE(8191, 24);
    expect(journalPageSize(header)).toBe(0);
    expect(journalPageSize(header.subarray(0, 20))).toBe(0);
  });

  test('hasWriteLock() reads the lines of /proc/locks', () => {
    const locks =
      '1: POSIX  ADVISORY  WRITE 4711 00:2d:786434 1073741825 1073741825\n2: -> FLOCK  ADVISORY  WRITE 99 08:01:55 0 EOF\n3: OFDLCK ADVISORY  READ -1 00:2d:77 1 2\n';
    expect([786434, 55, 77, 6434, 4711].map(ino => hasWriteLock(locks, ino))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });
});
