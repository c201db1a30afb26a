import {expect, test} from 'vitest';
import {UsageError} from '../../src/cli/arguments.ts';
import {commandUsages, parseCommandLine} from '../../src/cli/usage.ts';

test('parseCommandLine() reads mount', () => {
  expect(parseCommandLine(['mount'])).toEqual({
    command: 'mount',
    config: {path: undefined, expandEnv: true},
    skipUnmount: false,
    debug: false,
  });
  expect(parseCommandLine(['mount', '-config', '/a', '-no-expand-env', '-skip-unmount', '--debug'])).toEqual({
    command: 'mount',
    config: {path: '/a', expandEnv: false},
    skipUnmount: true,
    debug: true,
  });
});

test('parseCommandLine() reads reload, verify and version', () => {
  const config = {path: 'x', expandEnv: true};
  expect(parseCommandLine(['reload', '-config=x'])).toEqual({command: 'reload', config});
  expect(parseCommandLine(['verify', '/data'])).toEqual({command: 'verify', directory: '/data'});
  expect(parseCommandLine(['verify', '--', '-odd'])).toEqual({command: 'verify', directory: '-odd'});
  expect(parseCommandLine(['version'])).toEqual({command: 'version'});
});

test.each([[[]], [['-h']], [['--version']]])(
  'parseCommandLine(%j) shows the usage with exit code 2, as LiteFS does',
  argv => {
    expect(parseCommandLine(argv)).toMatchObject({
      command: 'help',
      exitCode: 2,
      text: expect.stringContaining('Usage: ferrite COMMAND'),
    });
  },
);

test('help lists every command and explains each', () => {
  const all = parseCommandLine(['help']);
  for (const [name, {flags}] of Object.entries(commandUsages)) {
    expect(all).toMatchObject({exitCode: 0, text: expect.stringContaining(`\n  ${name}`)});
    const one = parseCommandLine(['help', name]);
    expect(one).toMatchObject({exitCode: 0, text: expect.stringContaining(`Usage: ferrite ${name}`)});
    for (const flag of flags) expect(one).toMatchObject({text: expect.stringContaining(`  -${flag.name}`)});
  }
  expect(parseCommandLine(['mount', '-h'])).toMatchObject({
    exitCode: 2,
    text: expect.stringContaining('Usage: ferrite mount'),
  });
});

test.each([
  [['nope'], 'USAGE_UNKNOWN_COMMAND', undefined],
  [['toString'], 'USAGE_UNKNOWN_COMMAND', undefined],
  [['help', 'nope'], 'USAGE_UNKNOWN_COMMAND', undefined],
  [['help', 'mount', 'verify'], 'USAGE_BAD_ARGUMENT', 'help'],
  [['mount', 'x'], 'USAGE_BAD_ARGUMENT', 'mount'],
  [['mount', '--', 'app'], 'USAGE_BAD_ARGUMENT', 'mount'],
  [['verify'], 'USAGE_BAD_ARGUMENT', 'verify'],
  [['verify', 'a', 'b'], 'USAGE_BAD_ARGUMENT', 'verify'],
  [['reload', 'x'], 'USAGE_BAD_ARGUMENT', 'reload'],
  [['version', 'x'], 'USAGE_BAD_ARGUMENT', 'version'],
  [['mount', '-tracing'], 'USAGE_UNKNOWN_FLAG', 'mount'],
])('parseCommandLine() refuses %j with %s', (argv, code, command) => {
  expect(() => parseCommandLine(argv)).toThrow(
    expect.objectContaining({constructor: UsageError, code, command}),
  );
});
