import {expect, test} from 'vitest';
import {type Flag, HelpRequest, parseArguments, UsageError} from '../../src/cli/arguments.ts';

const flags: readonly Flag[] = [
  {name: 'config', placeholder: 'PATH', doc: ''},
  {name: 'debug', doc: ''},
];

function parse(...args: string[]) {
  const parsed = parseArguments('mount', flags, args);
  return {...parsed, flags: Object.fromEntries(parsed.flags)};
}

test.each([
  [[], {}, [], undefined],
  [['-config', 'a'], {config: 'a'}, [], undefined],
  [['--config', 'a'], {config: 'a'}, [], undefined],
  [['-config=a=b'], {config: 'a=b'}, [], undefined],
  [['-config='], {config: ''}, [], undefined],
  [['-config', '-debug'], {config: '-debug'}, [], undefined],
  [['-config', 'a', '-config=b'], {config: 'b'}, [], undefined],
  [['-debug'], {debug: true}, [], undefined],
  [['-debug=false'], {debug: false}, [], undefined],
  [['-debug=0', 'x'], {debug: false}, ['x'], undefined],
  [['-debug', 'false'], {debug: true}, ['false'], undefined],
  [['x', '-debug'], {}, ['x', '-debug'], undefined],
  [['-', '-debug'], {}, ['-', '-debug'], undefined],
  [['-debug', '--', '-config', '--', 'x'], {debug: true}, [], ['-config', '--', 'x']],
  [['x', '--', 'y'], {}, ['x'], ['y']],
  [['--'], {}, [], []],
])('parseArguments() reads %j as Go does', (args, expectedFlags, positional, rest) => {
  expect(parse(...args)).toEqual({flags: expectedFlags, positional, rest});
});

test.each([
  [['-nope'], 'USAGE_UNKNOWN_FLAG'],
  [['-nope=1'], 'USAGE_UNKNOWN_FLAG'],
  [['---debug'], 'USAGE_UNKNOWN_FLAG'],
  [['-=a'], 'USAGE_UNKNOWN_FLAG'],
  [['-config'], 'USAGE_BAD_VALUE'],
  [['-debug=maybe'], 'USAGE_BAD_VALUE'],
])('parseArguments() refuses %j with %s', (args, code) => {
  expect(() => parse(...args)).toThrow(
    expect.objectContaining({constructor: UsageError, code, command: 'mount'}),
  );
});

test.each(['-h', '-help', '--help'])('parseArguments() takes %s for a call for help', flag => {
  expect(() => parse('-debug', flag)).toThrow(HelpRequest);
});
