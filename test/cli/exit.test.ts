import {expect, test} from 'vitest';
import {UsageError} from '../../src/cli/arguments.ts';
import {describeExit} from '../../src/cli/exit.ts';
import {ConfigError} from '../../src/config/error.ts';
import {AssertionError} from '../../src/lib/assert.ts';

test('describeExit() gives 2 for what the operator wrote', () => {
  expect(describeExit(new UsageError('USAGE_BAD_VALUE', 'Cannot run "mount": x', 'mount'))).toEqual({
    code: 2,
    text: 'ERROR: Cannot run "mount": x\nRun "ferrite help mount" for its usage',
  });
  expect(describeExit(new UsageError('USAGE_UNKNOWN_COMMAND', 'y')).text).toContain(
    'Run "ferrite help" for the commands',
  );
  expect(describeExit(new ConfigError('CONFIG_INVALID', 'Cannot use config file "a"'))).toEqual({
    code: 2,
    text: 'ERROR: Cannot use config file "a"',
  });
});

test('describeExit() gives one line and 1 for the rest of the world', () => {
  const cause = new Error('EACCES: permission denied');
  const error = Object.assign(new Error('Cannot mount "/ferrite"', {cause}), {code: 'FUSE_MOUNT'});
  expect(describeExit(error)).toEqual({
    code: 1,
    text: 'ERROR: Cannot mount "/ferrite" (EACCES: permission denied)',
  });
  expect(describeExit('text')).toEqual({code: 1, text: 'ERROR: Cannot continue: text'});
});

test('describeExit() shows the stack of our own faults', () => {
  const {code, text} = describeExit(new AssertionError('it must hold that x'));
  expect(code).toBe(1);
  expect(text).toContain('exit.test.ts');
});
