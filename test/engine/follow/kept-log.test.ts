import {mkdirSync, readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {expect, test} from 'vitest';
import {keepLog} from '../../../src/engine/follow/kept-log.ts';
import {Disk} from '../../../src/lib/disk.ts';
import {filledLog, temporaryDirectory} from '../../log/support.ts';

function contents(directory: string): string[] {
  return readdirSync(directory).map(name => `${name} ${readFileSync(join(directory, name), 'base64')}`);
}

test('keepLog() that fails at any disk call leaves no part of a copy, and what it names is durable and whole', () => {
  const {directory, log} = filledLog(12);
  log.sync();
  const root = temporaryDirectory();
  const lost = join(root, 'lost');
  mkdirSync(lost);
  let calls: string[] = [];
  const keep = (failAt: number) => {
    calls = [];
    const onCall = (name: string) => {
      if (calls.push(name) === failAt) throw new Error('disk failed');
    };
    return keepLog(new Disk({onCall}), {id: 'a1', log}, directory, lost, join(root, 'temporary'));
  };
  const last = 2 * contents(directory).length + 3;
  for (let failAt = 1; failAt <= last; failAt++) {
    expect(() => keep(failAt)).toThrow('disk failed');
    expect(readdirSync(root)).toEqual(['lost']);
    expect(readdirSync(lost)).toHaveLength(failAt < last ? 0 : 1);
  }
  expect(calls.slice(-3)).toEqual(['lost-log:sync-directory', 'lost-log:rename', 'lost-log:sync-name']);
  expect(calls.filter(name => name === 'lost-log:sync')).toHaveLength(contents(directory).length);
  const {path, isNew} = keep(0);
  expect([isNew, calls]).toEqual([false, ['lost-log:sync-name']]);
  expect(path).toMatch(/a1-000000000000000c-[0-9a-f]{16}-1$/);
  expect(contents(path)).toEqual(contents(directory));
  log.close();
});
