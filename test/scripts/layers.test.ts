import {expect, test} from 'vitest';
import {checkFile, codeLinesMax, countCodeLines, listImports} from '../../scripts/layers.ts';

test('listImports() sees every way to name a module', () => {
  const source = `import a from './a.ts';
import type {B} from './b.ts';
import {
  c,
  type D,
} from './c.ts';
import './e.ts';
export {f} from './f.ts';
export type * from './g.ts';
const h = await import('./h.ts');
// import {no} from './no.ts';
const text = "from './no.ts'";
`;
  expect(
    listImports(source).map(({specifier, isTypeOnly}) => `${specifier}${isTypeOnly ? ' type' : ''}`),
  ).toEqual(['./a.ts', './b.ts type', './c.ts', './e.ts', './f.ts', './g.ts type', './h.ts']);
});

test.each([
  ['fuse/session.ts', "import {x} from '../lib/assert.ts';"],
  ['engine/apply/wal.ts', "import {x} from '../../sqlite/wal.ts';"],
  ['engine/apply/wal.ts', "import {x} from '../messages.ts';"],
  ['cluster/a.ts', "import {x} from '../engine/client.ts';"],
  ['cluster/a.ts', "import {x} from '../engine/messages/to-main.ts';"],
  ['cluster/a.ts', "import type {X} from '../log/segment.ts';"],
  ['cli/main.ts', "import {x} from '../engine/fs-thread.ts';"],
  ['sqlite/wal.ts', "import {x} from 'node:buffer';"],
])('checkFile() allows %s: %s', (path, source) => {
  expect(checkFile(path, source)).toEqual([]);
});

test.each([
  ['lib/a.ts', "import {x} from '../sqlite/wal.ts';"],
  ['fuse/a.ts', "import type {X} from '../sqlite/wal.ts';"],
  ['cluster/a.ts', "import {x} from '../engine/fs-thread.ts';"],
  ['cluster/a.ts', "import {x} from '../engine/client-secrets.ts';"],
  ['cluster/a.ts', "import {x} from '../log/segment.ts';"],
  ['sqlite/a.ts', "import {readFileSync} from 'node:fs';"],
  ['ltx/a.ts', "import {readFile} from 'node:fs/promises';"],
  ['lib/a.ts', "import {x} from '../../test/x.ts';"],
  ['config/a.ts', "export * from '../telemetry/log.ts';"],
  ['odd/a.ts', ''],
  ['main.ts', ''],
])('checkFile() refuses %s: %s', (path, source) => {
  expect(checkFile(path, source)).toHaveLength(1);
});

test('checkFile() counts lines of code, not of prose', () => {
  const code = 'x();\n'.repeat(codeLinesMax);
  const prose = '/**\n * Why.\n */\n\n// Why.\n';
  expect(countCodeLines(code + prose)).toBe(codeLinesMax);
  expect(checkFile('lib/a.ts', code + prose)).toEqual([]);
  expect(checkFile('lib/a.ts', `${code}y();\n`)).toHaveLength(1);
});
