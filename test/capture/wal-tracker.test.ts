import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {WalTracker, type WalTransaction} from '../../src/engine/capture/wal-tracker.ts';
import {
  encodeWalFrame,
  encodeWalHeader,
  frameOffset,
  HOST_IS_BIG_ENDIAN,
  WAL_FRAME_HEADER_SIZE,
  WAL_HEADER_SIZE,
} from '../../src/sqlite/wal.ts';

const PAGE_SIZE = 512;
const FRAME_SIZE = WAL_FRAME_HEADER_SIZE + PAGE_SIZE;

interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Makes the writes that SQLite makes, remembers what is in the file. */
class WalWriter {
  readonly writes: Write[] = [];
  readonly file = new Uint8Array(WAL_HEADER_SIZE + 200 * FRAME_SIZE);
  frameCount = 0;
  #salt = 1;
  #sums: [number, number][] = [];
  #start: [number, number] = [0, 0];
  #seed = 0;

  restart(): void {
    this.#salt++;
    const running = new Uint32Array(2);
    const bytes = new Uint8Array(WAL_HEADER_SIZE);
    const salts = {salt1: this.#salt, salt2: 77 * this.#salt};
    encodeWalHeader(
      bytes,
      0,
      {bigEndCksum: HOST_IS_BIG_ENDIAN, pageSize: PAGE_SIZE, nCkpt: this.#salt, ...salts},
      running,
    );
    this.#start = [running[0], running[1]];
    this.frameCount = 0;
    this.#sums = [];
    this.#put(0, bytes);
  }

  /** Appends frames; the last one commits if `commit` is not 0. */
  append(pgnos: readonly number[], commit: number): void {
    for (const [index, pgno] of pgnos.entries()) {
      this.#frame(this.frameCount++, pgno, index === pgnos.length - 1 ? commit : 0, true);
    }
  }

  /** What cache spill does: rewrites a frame's page, and leaves the checksums from there on wrong. */
  rewrite(frame: number): void {
    const pgno = this.pgnoOf(frame);
    this.#put(frameOffset(frame, PAGE_SIZE) + WAL_FRAME_HEADER_SIZE, this.#page());
    expect(pgno).toBeGreaterThan(0);
  }

  /** walRewriteChecksums: mends the frame headers from `frame` on. */
  mend(frame: number): void {
    for (let index = frame; index < this.frameCount; index++) {
      const at = frameOffset(index, PAGE_SIZE);
      const view = new DataView(this.file.buffer, at);
      const page = this.file.slice(at + WAL_FRAME_HEADER_SIZE, at + FRAME_SIZE);
      this.#frame(index, view.getUint32(0), view.getUint32(4), false, page);
    }
  }

  /** A writer that died after its commit frame: the next one begins where it had begun. */
  backTo(frame: number): void {
    this.frameCount = frame;
    this.#sums.length = frame;
  }

  pgnoOf(frame: number): number {
    return new DataView(this.file.buffer).getUint32(frameOffset(frame, PAGE_SIZE));
  }

  #frame(index: number, pgno: number, commit: number, withPage: boolean, page = this.#page()): void {
    const running = Uint32Array.from(index === 0 ? this.#start : (this.#sums[index - 1] ?? [0, 0]));
    const bytes = new Uint8Array(FRAME_SIZE);
    encodeWalFrame(
      bytes,
      0,
      {pgno, commit, salt1: this.#salt, salt2: 77 * this.#salt, page},
      running,
      HOST_IS_BIG_ENDIAN,
    );
    this.#sums[index] = [running[0], running[1]];
    this.#put(frameOffset(index, PAGE_SIZE), withPage ? bytes : bytes.subarray(0, WAL_FRAME_HEADER_SIZE));
  }

  #page(): Uint8Array {
    const page = new Uint8Array(PAGE_SIZE);
    new DataView(page.buffer).setUint32(0, ++this.#seed);
    return page.fill(this.#seed & 0xff, 4);
  }

  #put(offset: number, bytes: Uint8Array): void {
    this.file.set(bytes, offset);
    this.writes.push({offset, bytes: bytes.slice()});
  }
}

/** Feeds the writes, cut into pieces of the sizes in `cuts`, and returns the transactions that the tracker tells. */
function follow(writes: readonly Write[], cuts: readonly number[], frameCountMax: number) {
  const file = new Uint8Array(WAL_HEADER_SIZE + 200 * FRAME_SIZE);
  let size = 0;
  const read = (target: Uint8Array, position: number) => {
    const count = Math.max(0, Math.min(target.length, size - position));
    target.set(file.subarray(position, position + count));
    return count;
  };
  const tracker = new WalTracker(read);
  const found: (WalTransaction & {pgnos: number[]})[] = [];
  const undone: number[] = [];
  let cut = 0;
  for (const {offset, bytes} of writes) {
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + (cuts[cut++ % cuts.length] ?? 1));
      // As the daemon does: a write over frames that nobody has looked at waits until somebody has.
      if (tracker.isBehind && offset + at < tracker.writtenEnd) drain(tracker, found, frameCountMax);
      const isRepeated =
        tracker.overwrites(offset + at) &&
        Buffer.compare(piece, file.subarray(offset + at, offset + at + piece.length)) === 0;
      if (isRepeated) {
        at += piece.length;
        continue; // The daemon skips writes that change nothing committed: they may be resent.
      }
      file.set(piece, offset + at);
      size = Math.max(size, offset + at + piece.length);
      undone.push(...tracker.wrote(offset + at, piece.length));
      const next = tracker.next(frameCountMax);
      if (next !== undefined && next !== 'more') {
        note(tracker, found, next);
        expectPagesAsInFile(tracker, file, next);
      }
      at += piece.length;
    }
  }
  drain(tracker, found, frameCountMax);
  return {found, undone, tracker, file, size, read};
}

function expectPagesAsInFile(tracker: WalTracker, file: Uint8Array, {first, end}: WalTransaction): void {
  for (let frame = first; frame < end; frame++) {
    const page = tracker.pageJustChecked(frame);
    const at = WAL_HEADER_SIZE + frame * FRAME_SIZE + WAL_FRAME_HEADER_SIZE;
    if (page !== undefined) expect(page).toEqual(file.subarray(at, at + PAGE_SIZE));
  }
  expect(tracker.pageJustChecked(end)).toBeUndefined();
}

function note(
  tracker: WalTracker,
  found: (WalTransaction & {pgnos: number[]})[],
  transaction: WalTransaction,
): void {
  found.push({...transaction, pgnos: [...tracker.pgnosOf(transaction.first, transaction.end)]});
}

function drain(
  tracker: WalTracker,
  found: (WalTransaction & {pgnos: number[]})[],
  frameCountMax: number,
): void {
  for (let next = tracker.next(frameCountMax); next !== undefined; next = tracker.next(frameCountMax))
    if (next !== 'more') note(tracker, found, next);
}

const cutsOf = fc.oneof(
  fc.constant([FRAME_SIZE]),
  fc.constant([WAL_FRAME_HEADER_SIZE, PAGE_SIZE]),
  fc.array(fc.integer({min: 1, max: 1300}), {minLength: 1, maxLength: 20}),
);
const transactionsOf = fc.array(
  fc.record({
    pgnos: fc.array(fc.integer({min: 1, max: 50}), {minLength: 1, maxLength: 12}),
    spills: fc.array(fc.nat(), {maxLength: 3}),
    commits: fc.boolean(),
    restarts: fc.boolean(),
  }),
  {minLength: 1, maxLength: 12},
);

interface Played {
  readonly pgnos: number[];
  readonly spills: number[];
  readonly commits: boolean;
  readonly restarts: boolean;
}

/** Makes SQLite's writes for the transactions, and says what a tracker must tell of them. */
function play(transactions: readonly Played[]) {
  const writer = new WalWriter();
  writer.restart();
  const expected: {first: number; end: number; commit: number; pgnos: number[]}[] = [];
  const undone: number[] = [];
  let committed = 0;
  for (const [index, {pgnos, spills, commits, restarts}] of transactions.entries()) {
    if (restarts && committed > 0) {
      writer.restart();
      undone.push(...(expected.at(-1)?.pgnos ?? []));
      committed = 0;
    }
    const first = writer.frameCount;
    const half = Math.ceil(pgnos.length / 2);
    writer.append(pgnos.slice(0, half), 0);
    const rewritten = spills.map(n => first + (n % half));
    for (const frame of rewritten) writer.rewrite(frame);
    if (!commits) {
      writer.backTo(first); // Rolled back: the next transaction overwrites the frames.
      continue;
    }
    writer.append(pgnos.slice(half).concat(51), 100 + index);
    if (rewritten.length > 0) writer.mend(Math.min(...rewritten));
    committed = writer.frameCount;
    expected.push({first, end: committed, commit: 100 + index, pgnos: [...pgnos, 51]});
  }
  return {writer, expected, undone, committed};
}

describe('WalTracker', () => {
  test('next() tells the same transactions and wrote() the last one before each restart, however the writes are cut, with spills and rollbacks', () => {
    fc.assert(
      fc.property(
        transactionsOf,
        cutsOf,
        fc.integer({min: 1, max: 20}),
        (transactions, cuts, frameCountMax) => {
          const {writer, expected, undone: undoneExpected, committed} = play(transactions);
          const {found, undone, tracker} = follow(writer.writes, cuts, frameCountMax);
          expect(found).toEqual(expected);
          expect(undone).toEqual(undoneExpected);
          expect(tracker.committedCount).toBe(committed);
          for (let frame = 0; frame < committed; frame++)
            expect(tracker.pgnoOf(frame)).toBe(writer.pgnoOf(frame));
        },
      ),
      {numRuns: 300},
    );
  });

  test('wrote() returns the pages of committed frames that are written over under the same salts', () => {
    fc.assert(
      fc.property(cutsOf, fc.integer({min: 1, max: 8}), (cuts, count) => {
        const writer = new WalWriter();
        writer.restart();
        writer.append([1, 2, 3], 3);
        writer.append(
          Array.from({length: count}, (_, i) => 10 + i),
          20,
        );
        writer.backTo(3);
        writer.append([30, 31], 40);
        const {found, undone} = follow(writer.writes, cuts, 5);
        expect(undone.sort((a, b) => a - b)).toEqual(Array.from({length: count}, (_, i) => 10 + i));
        expect(found.at(-1)).toEqual({first: 3, end: 5, commit: 40, pgnos: [30, 31]});
      }),
    );
  });

  test('next() does not take stale frames of an older generation for new ones', () => {
    const writer = new WalWriter();
    writer.restart();
    for (let i = 0; i < 5; i++) writer.append([1, 2, 3], 3);
    writer.restart();
    writer.append([7], 7);
    const {tracker, read, size} = follow(writer.writes, [FRAME_SIZE], 64);
    expect([tracker.committedCount, tracker.isBehind]).toEqual([1, false]);
    const again = new WalTracker(read);
    again.load(size, 0);
    expect(again.next()).toEqual({first: 0, end: 1, commit: 7});
    expect(again.next()).toBeUndefined();
    expect(again.isBehind).toBe(false);
  });

  test('load() goes on behind what is in the log', () => {
    const writer = new WalWriter();
    writer.restart();
    writer.append([1, 2, 3], 3);
    writer.append([4], 4);
    writer.append([5, 6], 6);
    const {read, size} = follow(writer.writes, [FRAME_SIZE], 64);
    const tracker = new WalTracker(read);
    tracker.load(size, frameOffset(4, PAGE_SIZE));
    expect([tracker.committedCount, tracker.lastCommit, tracker.findFrame(2, 4)]).toEqual([4, 4, 1]);
    expect([1, 2, 3, 4, 5].map(pgno => tracker.holds(pgno))).toEqual([true, true, true, true, false]);
    expect(tracker.next()).toEqual({first: 4, end: 6, commit: 6});
    expect(tracker.holds(5)).toBe(true);
  });

  test('load() knows which transaction is the last', () => {
    const writer = new WalWriter();
    writer.restart();
    writer.append([1, 2, 3], 3);
    writer.append([4], 4);
    writer.append([5, 6], 6);
    const {file, read, size} = follow(writer.writes, [FRAME_SIZE], 64);
    const tracker = new WalTracker(read);
    tracker.load(size, frameOffset(6, PAGE_SIZE));
    writer.restart();
    file.set(writer.file.subarray(0, WAL_HEADER_SIZE));
    expect([...tracker.wrote(0, WAL_HEADER_SIZE)]).toEqual([5, 6]);
    expect([...tracker.wrote(0, WAL_HEADER_SIZE)]).toEqual([]);
    expect(tracker.holds(5)).toBe(false);
  });

  test('truncated() forgets what was cut off', () => {
    const writer = new WalWriter();
    writer.restart();
    writer.append([1, 2], 2);
    writer.append([3], 3);
    const {tracker} = follow(writer.writes, [FRAME_SIZE], 64);
    expect([...tracker.truncated(frameOffset(10, PAGE_SIZE))]).toEqual([]);
    expect([1, 2, 3].map(pgno => tracker.holds(pgno))).toEqual([true, true, true]);
    expect([...tracker.truncated(frameOffset(2, PAGE_SIZE))]).toEqual([3]);
    expect([1, 2, 3].map(pgno => tracker.holds(pgno))).toEqual([true, true, false]);
    expect(tracker.committedCount).toBe(2);
    expect([...tracker.truncated(0)]).toEqual([]);
    expect([tracker.header, tracker.committedCount, tracker.committedEnd]).toEqual([undefined, 0, 0]);
  });

  test('a single bit that is wrong in a frame keeps it and all after it from being taken', () => {
    const writer = new WalWriter();
    writer.restart();
    writer.append([1], 1);
    writer.append([2], 2);
    writer.append([3], 3);
    fc.assert(
      fc.property(
        fc.integer({min: frameOffset(1, PAGE_SIZE) * 8, max: frameOffset(2, PAGE_SIZE) * 8 - 1}),
        bit => {
          const file = writer.file.slice();
          file[bit >> 3] ^= 1 << (bit & 7);
          const tracker = new WalTracker((target, position) => {
            target.set(file.subarray(position, position + target.length));
            return target.length;
          });
          tracker.load(frameOffset(3, PAGE_SIZE), 0);
          expect(tracker.next()).toEqual({first: 0, end: 1, commit: 1});
          expect(tracker.next()).toBeUndefined();
        },
      ),
    );
  });
});
