import fc from 'fast-check';
import {expect, test} from 'vitest';
import {expandEnvironment} from '../../src/config/environment.ts';

const env = {A: 'one', B: 'two', EMPTY: '', A_1: 'under', '1': 'positional'};

test.each([
  ['$A', 'one'],
  ['$A_1-$B', 'under-two'],
  ['${A}', 'one'],
  ['${ A }', 'one'],
  ['x$UNSET.y', 'x.y'],
  ['${UNSET}', ''],
  ['$', '$'],
  ['a $ b', 'a $ b'],
  ['$.', '$.'],
  ['cost: 5$', 'cost: 5$'],
  ['$1', 'positional'],
  ['$1A', 'positionalA'],
  ['${1}', 'positional'],
  ['$$A', 'A'],
  ['a${}b', 'ab'],
  ['a${b', 'ab'],
  ['${', ''],
  ['${A}}', 'one}'],
])('expandEnvironment() turns %j into %j, as Go does', (text, expected) => {
  expect(expandEnvironment(text, env)).toBe(expected);
});

test.each([
  ["${A == 'one'}", 'true'],
  ["${A=='one'}", 'true'],
  ['${A == "two"}', 'false'],
  ["${A != 'two'}", 'true'],
  ["${ A == 'one' }", 'true'],
  ['${A == A}', 'true'],
  ['${A == B}', 'false'],
  ['${A != B}', 'true'],
  ["${UNSET == ''}", 'true'],
  ['${UNSET == EMPTY}', 'true'],
])('expandEnvironment() compares %s: %s', (text, expected) => {
  expect(expandEnvironment(text, env)).toBe(expected);
});

test('expandEnvironment() does not expand what a variable holds', () => {
  expect(expandEnvironment('$X', {X: '$A ${A}', A: 'no'})).toBe('$A ${A}');
});

test('expandEnvironment() leaves text without a dollar alone', () => {
  fc.assert(
    fc.property(
      fc.string().filter(text => !text.includes('$')),
      text => expandEnvironment(text, env) === text,
    ),
  );
});
