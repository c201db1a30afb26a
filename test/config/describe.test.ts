import {readFileSync} from 'node:fs';
import {expect, test} from 'vitest';
import {insertOptions, sampleConfig} from '../../scripts/documents.ts';
import {loadConfig} from '../../src/config/load.ts';

const sample = readFileSync('etc/ferrite.yml', 'utf8');

function loadSample(text: string) {
  return loadConfig({
    env: {},
    cwd: '/',
    expandEnv: false,
    path: '/sample.yml',
    readFile: () => text,
    realpath: path => path,
  });
}

test('README.md and etc/ferrite.yml are what `npm run docs` would write', () => {
  const readme = readFileSync('README.md', 'utf8');
  expect(insertOptions(readme)).toBe(readme);
  expect(sampleConfig()).toBe(sample);
});

test('the sample is valid, and so is every line of it that is commented out', () => {
  const defaults = loadSample(sample);
  const everything = loadSample(sample.replace(/^( *)# ([a-z-]+: \S+)$/gm, '$1$2'));
  const examples = {
    dataRetentionBytesMax: 512 * 1024 ** 2,
    leaseHostname: 'node-1',
    leaseAdvertiseUrl: 'http://node-1:20202',
  };
  expect(everything).toEqual({...defaults, ...examples});
});

test('the documentation does not mention options for tests', () => {
  expect(sample).not.toContain('pending-byte');
});

test('insertOptions() refuses a file without its marks', () => {
  expect(() => insertOptions('# Title')).toThrow('lacks "<!-- options:start -->"');
});
