import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {
  decodeFrame,
  encodeFrame,
  FRAME_SIZE_MAX,
  type Frame,
  inPages,
  PAYLOAD_SIZE_MAX,
  refusalCodes,
  resyncWants,
  rewindReasons,
} from '../../src/cluster/wire.ts';
import {WireError} from '../../src/cluster/wire-bytes.ts';
import {PAGE_COUNT_MAX, STREAM_VERSION} from '../../src/cluster/wire-fields.ts';
import {CHECKSUM_FLAG, toChecksum, toTxid} from '../../src/ltx/position.ts';

const u64Max = 2n ** 64n - 1n;
const id = fc.uint8Array({minLength: 16, maxLength: 16}).map(bytes => Buffer.from(bytes).toString('hex'));
const name = fc.string({unit: 'grapheme', maxLength: 40});
const u32 = fc.integer({min: 0, max: 2 ** 32 - 1});
const u64 = fc.bigInt({min: 0n, max: u64Max});
const txid = u64.map(toTxid);
const checksum = u64.map(value => toChecksum(value | CHECKSUM_FLAG));
const position = fc.record({txid, checksum});
const bytes = fc.uint8Array({minLength: 1, maxLength: 300});
const span = fc
  .tuple(fc.bigInt({min: 1n, max: u64Max}), fc.bigInt({min: 1n, max: u64Max}))
  .map(([a, b]) =>
    a < b ? {minTxid: toTxid(a), maxTxid: toTxid(b)} : {minTxid: toTxid(b), maxTxid: toTxid(a)},
  );
const count = fc.maxSafeNat();
const list = <T>(entry: fc.Arbitrary<T>) => fc.array(entry, {maxLength: 5});
const of = <T extends string, R>(type: T, shape: fc.Arbitrary<R>) => shape.map(fields => ({type, ...fields}));

const frames: {readonly [T in Frame['type']]: fc.Arbitrary<Frame>} = {
  hello: of('hello', fc.record({nodeId: name, clusterId: name, termSeen: u64})),
  positions: of(
    'positions',
    fc.record({isLast: fc.boolean(), entries: list(fc.record({id, name, position, term: u64}))}),
  ),
  ack: of('ack', fc.record({entries: list(fc.record({id, position}))})),
  credit: of('credit', fc.record({entries: list(fc.record({id, size: u32}))})),
  resync: of('resync', fc.record({id, position, term: u64, want: fc.constantFrom(...resyncWants)})),
  heartbeat: of('heartbeat', fc.record({timestampMs: count, isCaughtUp: fc.boolean()})),
  welcome: of('welcome', fc.record({nodeId: name, clusterId: name, term: u64})),
  refused: of('refused', fc.record({code: fc.constantFrom(...refusalCodes), message: name})),
  catalogue: of(
    'catalogue',
    fc.record({isLast: fc.boolean(), entries: list(fc.record({id, name, position}))}),
  ),
  create: of('create', fc.record({id, name})),
  rename: of('rename', fc.record({id, name})),
  drop: of('drop', fc.record({id})),
  orphan: of('orphan', fc.record({id})),
  rewind: of('rewind', fc.record({id, reason: fc.constantFrom(...rewindReasons), position})),
  records: of(
    'records',
    fc.tuple(id, span, bytes).map(([id, span, bytes]) => ({id, ...span, bytes})),
  ),
  'record-begin': of(
    'record-begin',
    fc.tuple(id, span, count).map(([id, span, size]) => ({id, ...span, size})),
  ),
  'snapshot-begin': of(
    'snapshot-begin',
    fc.record({
      id,
      from: position,
      fromTerm: u64,
      pageSize: fc.integer({min: 9, max: 16}).map(exponent => 2 ** exponent),
      pageCount: u32,
    }),
  ),
  pages: of('pages', fc.record({id, pgno: fc.integer({min: 1, max: 2 ** 32 - 1}), bytes})),
  chunk: of('chunk', fc.record({id, bytes})),
  end: of('end', fc.record({id, txid})),
  abort: of('abort', fc.record({id})),
  restart: of('restart', fc.record({id})),
  ready: of('ready', fc.record({databaseCount: u32})),
};

const A = '000102030405060708090a0b0c0d0e0f';
const examples: readonly Frame[] = [
  {type: 'hello', nodeId: 'n1', clusterId: 'c', termSeen: 3n},
  {type: 'records', id: A, minTxid: toTxid(1n), maxTxid: toTxid(2n), bytes: Buffer.from([0xaa, 0xbb])},
  {type: 'ack', entries: [{id: A, position: {txid: toTxid(2n), checksum: toChecksum(CHECKSUM_FLAG | 5n)}}]},
  {type: 'heartbeat', timestampMs: 256, isCaughtUp: true},
];

function hex(frame: Uint8Array): string {
  return Buffer.from(frame).toString('hex');
}

test('encodeFrame() gives the bytes of version 1', () => {
  expect(STREAM_VERSION).toBe(1);
  expect(examples.map(frame => hex(encodeFrame(frame)))).toEqual([
    '0146655374000100026e310001630000000000000003',
    `18${A}00000000000000010000000000000002aabb`,
    `030001${A}00000000000000028000000000000005`,
    '06000000000000010001',
  ]);
});

describe.each(Object.entries(frames))('%s', (_, arbitrary) => {
  test('survives the round trip', () => {
    fc.assert(
      fc.property(arbitrary, frame => {
        const decoded = decodeFrame(encodeFrame(frame));
        const plain = 'bytes' in decoded ? {...decoded, bytes: new Uint8Array(decoded.bytes)} : decoded;
        expect(plain).toEqual(frame);
      }),
      {numRuns: 40},
    );
  });

  test('is refused at every truncation, and with bytes after its end', () => {
    fc.assert(
      fc.property(arbitrary, frame => {
        const encoded = encodeFrame(frame);
        // A payload goes to the frame's end: there the record's own checksums find what is missing.
        const fixedSize = 'bytes' in frame ? encoded.length - frame.bytes.length + 1 : encoded.length;
        for (let size = 0; size < fixedSize; size++) {
          expect(() => decodeFrame(encoded.subarray(0, size))).toThrow(WireError);
        }
        if (!('bytes' in frame)) {
          expect(() => decodeFrame(Buffer.concat([encoded, Buffer.of(0)]))).toThrow(WireError);
        }
      }),
      {numRuns: 10},
    );
  });

  test('with any bit flipped is refused or is another frame', () => {
    fc.assert(
      fc.property(arbitrary, frame => {
        const encoded = Buffer.from(encodeFrame(frame));
        for (let bit = 0; bit < encoded.length * 8; bit++) {
          const flipped = Buffer.from(encoded);
          flipped[bit >> 3] ^= 1 << (bit & 7);
          expectSound(flipped);
        }
      }),
      {numRuns: 4},
    );
  });
});

/** Decodes to a frame that encodes to the same bytes, or is refused with a coded error. */
function expectSound(input: Uint8Array): void {
  let frame: Frame;
  try {
    frame = decodeFrame(input);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return;
  }
  expect(hex(encodeFrame(frame))).toBe(hex(input));
}

test('decodeFrame() takes any bytes without harm', () => {
  fc.assert(fc.property(fc.uint8Array({maxLength: 200}), expectSound), {numRuns: 2_000});
  fc.assert(
    fc.property(fc.integer({min: 0, max: 33}), fc.uint8Array({maxLength: 200}), (tag, rest) => {
      expectSound(Buffer.concat([Buffer.of(tag), rest]));
    }),
    {numRuns: 2_000},
  );
});

test('decodeFrame() names both versions', () => {
  const hello = Buffer.from(encodeFrame(examples[0]));
  hello.writeUInt16BE(77, 5);
  expect(() => decodeFrame(hello)).toThrow(
    expect.objectContaining({code: 'WIRE_VERSION', detail: {theirs: 77, ours: 1}}),
  );
});

test('lengths beyond their bounds are refused on both sides', () => {
  const long = 'x'.repeat(2000);
  const many = Array.from({length: PAGE_COUNT_MAX + 1}, () => ({id: A, size: 1}));
  const oversize = expect.objectContaining({code: 'WIRE_OVERSIZE'});
  const chunk = {type: 'chunk', id: A, bytes: new Uint8Array(PAYLOAD_SIZE_MAX + 1)} as const;
  expect(() => encodeFrame({type: 'create', id: A, name: long})).toThrow(oversize);
  expect(() => encodeFrame({type: 'credit', entries: many})).toThrow(oversize);
  expect(() => encodeFrame(chunk)).toThrow(oversize);
  expect(() => decodeFrame(Buffer.concat([Buffer.of(28), Buffer.alloc(16), chunk.bytes]))).toThrow(oversize);
  expect(() => decodeFrame(Buffer.from('04ffff', 'hex'))).toThrow(oversize);
  expect(() =>
    decodeFrame(
      Buffer.concat([Buffer.of(19), Buffer.alloc(16), Buffer.of(0xff, 0xff), Buffer.alloc(70_000)]),
    ),
  ).toThrow(oversize);
  expect(() => decodeFrame(new Uint8Array(FRAME_SIZE_MAX + 1))).toThrow(oversize);
  const full = {type: 'chunk', id: A, bytes: new Uint8Array(PAYLOAD_SIZE_MAX)} as const;
  expect(encodeFrame(full).length).toBeLessThan(FRAME_SIZE_MAX);
});

test('a full page of the longest names fits a frame', () => {
  const entries = Array.from({length: PAGE_COUNT_MAX}, () => ({
    id: A,
    name: 'n'.repeat(1024),
    position: {txid: toTxid(1n), checksum: CHECKSUM_FLAG},
    term: 1n,
  }));
  expect(encodeFrame({type: 'positions', isLast: true, entries}).length).toBeLessThan(FRAME_SIZE_MAX);
});

test('decodeFrame() refuses what no field may hold', () => {
  const refused = (text: string) => expect(() => decodeFrame(Buffer.from(text, 'hex'))).toThrow(WireError);
  refused(`030001${A}00000000000000020000000000000005`); // A checksum without its flag.
  refused(`18${A}00000000000000020000000000000001aabb`); // Txids in the wrong order.
  refused(`18${A}00000000000000000000000000000001aabb`); // Txid 0.
  refused(`1b${A}00000000aabb`); // Pgno 0.
  refused('06000000000000010002'); // A flag of 2.
  refused(`13${A}0001ff`); // A name that is not UTF-8.
});

test('inPages() keeps order and leaves nothing out', () => {
  fc.assert(
    fc.property(fc.nat({max: 2_000}), size => {
      const entries = Array.from({length: size}, (_, index) => index);
      const pages = inPages(entries);
      expect(pages.flat()).toEqual(entries);
      expect(pages.length).toBeGreaterThan(0);
      expect(Math.max(...pages.map(page => page.length))).toBeLessThanOrEqual(PAGE_COUNT_MAX);
    }),
    {numRuns: 20},
  );
});
