import fc from 'fast-check';
import {expect, test} from 'vitest';
import {parseDurationNs} from '../../src/config/duration.ts';
import {
  parseBoolean,
  parseBytes,
  parseDurationMs,
  parseDurationUs,
  parseHttpUrl,
  parseListenAddress,
  parsePendingByte,
  parseText,
} from '../../src/config/values.ts';

test.each([
  ['0s', 0],
  ['1ns', 1],
  ['30us', 30e3],
  ['30\u00b5s', 30e3],
  ['30\u03bcs', 30e3],
  ['1.5ms', 1.5e6],
  ['.5s', 5e8],
  ['1.s', 1e9],
  ['1m30s', 90e9],
  ['1h1m1s1ms1us1ns', 3661e9 + 1001001],
  ['-2s', -2e9],
  ['+2s', 2e9],
])('parseDurationNs(%j) is %d', (text, expected) => {
  expect(parseDurationNs(text)).toBe(expected);
});

test.each(['', '1', '0', 's', '1 s', '1S', '1d', '1s2', '--1s', '.s', '1e3s', '999999999h', 'NaNs'])(
  'parseDurationNs() refuses %j',
  text => {
    expect(parseDurationNs(text)).toBeUndefined();
  },
);

test('parseDurationNs() adds up hours, minutes and seconds', () => {
  const field = fc.nat(59);
  fc.assert(
    fc.property(fc.nat(1000), field, field, (hours, minutes, seconds) => {
      expect(parseDurationNs(`${hours}h${minutes}m${seconds}s`)).toBe(
        ((hours * 60 + minutes) * 60 + seconds) * 1e9,
      );
    }),
  );
});

test('durations come in their option unit, and a bare number is refused with the remedy', () => {
  expect(parseDurationMs('10s')).toEqual({value: 10_000});
  expect(parseDurationUs('1.5ms')).toEqual({value: 1500});
  expect(parseDurationMs('10')).toMatchObject({remedy: expect.stringContaining('write 10s')});
  expect(parseDurationMs('0')).toMatchObject({remedy: expect.stringContaining('write 0s')});
  expect(parseDurationMs('-1s')).toMatchObject({problem: 'a negative duration'});
});

test.each(['true', 'True', 'TRUE', 'yes', 'Yes', 'on', 'ON', 'y'])('parseBoolean(%j) is true', text => {
  expect(parseBoolean(text)).toEqual({value: true});
});

test.each(['false', 'no', 'No', 'off', 'OFF', 'n'])('parseBoolean(%j) is false', text => {
  expect(parseBoolean(text)).toEqual({value: false});
});

test.each(['', '1', '0', 'maybe', ' true'])('parseBoolean() refuses %j', text => {
  expect(parseBoolean(text)).toHaveProperty('problem');
});

test.each([
  ['1', 1],
  ['512MiB', 512 * 1024 * 1024],
  ['512 mib', 512 * 1024 * 1024],
  ['1.5KB', 1500],
  ['10GB', 10e9],
  ['1TiB', 1024 ** 4],
])('parseBytes(%j) is %d', (text, value) => {
  expect(parseBytes(text)).toEqual({value});
});

test.each(['', '0', '0.1B', '-1MB', '1M', '1PB', '9999999TB', 'MB', '1e3'])(
  'parseBytes() refuses %j',
  text => {
    expect(parseBytes(text)).toHaveProperty('problem');
  },
);

test.each([
  [':20202', undefined, 20_202],
  ['localhost:0', 'localhost', 0],
  ['10.0.0.1:65535', '10.0.0.1', 65_535],
  ['[::1]:80', '::1', 80],
])('parseListenAddress(%j)', (text, host, port) => {
  expect(parseListenAddress(text)).toEqual({value: {host, port}});
});

test.each(['', '20202', 'host', 'host:', ':65536', '::1:80', 'http://a:1', 'a b:1', ':-1'])(
  'parseListenAddress() refuses %j',
  text => {
    expect(parseListenAddress(text)).toHaveProperty('problem');
  },
);

test('parseHttpUrl() drops a trailing slash and keeps a path', () => {
  expect(parseHttpUrl('http://a:1/')).toEqual({value: 'http://a:1'});
  expect(parseHttpUrl('https://a/b')).toEqual({value: 'https://a/b'});
});

test.each(['', 'a:1', 'ftp://a', '//a', 'http://', 'http://u:p@a', 'http://a?x', 'http://a#x'])(
  'parseHttpUrl() refuses %j',
  text => {
    expect(parseHttpUrl(text)).toHaveProperty('problem');
  },
);

test('parsePendingByte() takes powers of two only', () => {
  expect(parsePendingByte('0x40000000')).toEqual({value: 0x40000000});
  expect(parsePendingByte('65536')).toEqual({value: 65_536});
  for (const text of ['0', '512', '65537', '0x80000000', 'x', ''])
    expect(parsePendingByte(text)).toHaveProperty('problem');
});

test('parseText() refuses nothing and NUL', () => {
  expect(parseText('a')).toEqual({value: 'a'});
  for (const text of ['', '  ', 'a\0b']) expect(parseText(text)).toHaveProperty('problem');
});
