import fc from 'fast-check';
import {expect, test} from 'vitest';
import {createLogger, type LoggerOptions} from '../../src/telemetry/log.ts';

class StoreError extends Error {
  readonly code = 'STORE_CORRUPT';
  readonly detail = {txid: 5n};
}

function capture(options: Partial<LoggerOptions> = {}) {
  const lines: string[] = [];
  const write = (line: string) => {
    lines.push(line);
  };
  return {lines, log: createLogger({format: 'text', debug: false, timestamp: false, write, ...options})};
}

test('createLogger() writes one text line for each event, in the form of LiteFS', () => {
  const {lines, log} = capture();
  log.info('lease acquired', {
    leaseId: 'a b',
    ttlMs: 10_000,
    txid: 0xffffffffffffffffn,
    isPrimary: true,
    none: null,
    gone: undefined,
  });
  log.warn('no fields');
  log.error('must act', {path: '/a=b'});
  expect(lines).toEqual([
    'level=INFO msg="lease acquired" leaseId="a b" ttlMs=10000 txid=18446744073709551615 isPrimary=true none=null\n',
    'level=WARN msg="no fields"\n',
    'level=ERROR msg="must act" path="/a=b"\n',
  ]);
});

test('createLogger() writes JSON lines', () => {
  const {lines, log} = capture({format: 'json'});
  log.info('started', {txid: 1n, nested: {list: [2n]}, bytes: new Uint8Array([1, 255])});
  expect(JSON.parse(lines[0])).toEqual({
    level: 'INFO',
    msg: 'started',
    txid: '1',
    nested: {list: ['2']},
    bytes: '01ff',
  });
});

test('createLogger() hides debugging unless asked for', () => {
  const quiet = capture();
  quiet.log.debug('detail');
  expect(quiet.lines).toEqual([]);
  const loud = capture({debug: true});
  loud.log.debug('detail');
  expect(loud.lines).toEqual(['level=DEBUG msg="detail"\n']);
});

test('createLogger() tells the time first when asked for', () => {
  const {lines, log} = capture({timestamp: true});
  log.info('x');
  expect(lines[0]).toMatch(/^time=\d{4}-\d\d-\d\dT[\d:.]+Z level=INFO msg="x"\n$/);
});

test('child() adds its fields to every line, and the line itself wins', () => {
  const {lines, log} = capture();
  log.child({database: 'a.db', n: 1}).child({peer: 'b'}).info('applied', {n: 2});
  expect(lines).toEqual(['level=INFO msg="applied" database=a.db n=2 peer=b\n']);
});

test('an error becomes message, code, detail and causes; only one without a code brings its stack', () => {
  const {lines, log} = capture({format: 'json'});
  const cause = new Error('disk gone', {cause: 'unplugged'});
  log.error('apply failed', {error: new StoreError('Cannot apply', {cause})});
  log.error('bug', {error: new TypeError('x is undefined')});
  expect(JSON.parse(lines[0])).toEqual({
    level: 'ERROR',
    msg: 'apply failed',
    error: 'Cannot apply',
    'error.code': 'STORE_CORRUPT',
    'error.detail': {txid: '5'},
    'error.cause': 'disk gone; unplugged',
  });
  expect(JSON.parse(lines[1])['error.stack']).toContain('TypeError: x is undefined');
});

test('fields cannot replace level, message or time', () => {
  const {lines, log} = capture();
  log.info('real', {msg: 'forged', level: 'ERROR', time: 1});
  expect(lines).toEqual(['level=INFO msg="real" msg_=forged level_=ERROR time_=1\n']);
});

test('cycles, deep and long values and odd numbers are cut, not fatal', () => {
  const {lines, log} = capture();
  const loop: Record<string, unknown> = {n: Number.NaN, when: new Date(Number.NaN), f: () => {}};
  loop.self = loop;
  log.info('odd', {loop, list: Array.from({length: 1000}, (_, i) => i), map: new Map([[1n, new Set([2n])]])});
  expect(lines[0].length).toBeLessThan(2000);
  expect(lines[0]).toContain('950 more');
});

test('no value or key can break a text line or add a pair to it', () => {
  const {lines, log} = capture();
  fc.assert(
    fc.property(fc.string({unit: 'binary'}), fc.string({unit: 'binary'}), (key, value) => {
      lines.length = 0;
      log.info(value, {[key]: value});
      expect(lines).toHaveLength(1);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
      expect(lines[0].slice(0, -1)).not.toMatch(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/);
      const withoutQuoted = lines[0].replace(/"(?:[^"\\]|\\.)*"/g, 'Q');
      expect(withoutQuoted.split('=')).toHaveLength(4);
    }),
  );
});
