import {spawn} from 'node:child_process';
import {cp, readFile, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {expect} from 'vitest';
import {TestNode, until} from '../support/node.ts';

export const JOURNAL_MODES = ['delete', 'truncate', 'persist', 'memory', 'off', 'wal'] as const;

/** Runs a Python program with its own time limit; `path` and `args` are there as `sys.argv[1:]`. Resolves to what it printed. */
export function python(program: string, args: readonly string[], timeoutMs = 60_000): Promise<string> {
  return run('python3', ['-c', PRELUDE + program, ...args], timeoutMs);
}

const PRELUDE = `
import sqlite3, sys, os, time, random, hashlib
def connect(path, **options):
    return sqlite3.connect(path, isolation_level=None, timeout=options.pop('timeout', 10), **options)
`;

/** Runs the sqlite3 shell. */
export function shell(path: string, ...commands: readonly string[]): Promise<string> {
  return run('sqlite3', ['-bail', path, ...commands], 30_000);
}

export function run(program: string, args: readonly string[], timeoutMs: number): Promise<string> {
  const child = spawn(program, args, {stdio: ['ignore', 'pipe', 'pipe']});
  let output = '';
  let errors = '';
  child.stdout.on('data', bytes => {
    output += String(bytes);
  });
  child.stderr.on('data', bytes => {
    errors += String(bytes);
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  const ended = new Promise<string>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve(output.trim());
      else
        reject(
          new Error(`${program} ended with ${code ?? signal}: ${errors.trim()}\n${output.slice(-2000)}`),
        );
    });
  });
  ended.catch(() => undefined); // Whoever awaits it later still gets the error.
  return ended;
}

/** SHA-256 over the pages that a reader of the database sees, and its integrity. */
export async function digest(path: string): Promise<string> {
  return await python(
    `
c = connect(sys.argv[1])
print(c.execute('pragma integrity_check').fetchone()[0], hashlib.sha256(c.serialize()).hexdigest())
`,
    [path],
  );
}

export async function position(node: TestNode, name: string): Promise<string> {
  return await readFile(node.path(`${name}-pos`), 'utf8').catch(() => 'none');
}

/** Waits until the follower stands where the primary does, then compares what readers see on both, byte for byte. */
export async function expectEqual(
  primary: TestNode,
  follower: TestNode,
  names: readonly string[],
  timeoutMs = 60_000,
): Promise<void> {
  for (const name of names) {
    let [ours, theirs] = ['', ''];
    await until(
      async () => {
        [ours, theirs] = [await position(primary, name), await position(follower, name)];
        return ours === theirs && ours !== 'none';
      },
      timeoutMs,
      () =>
        `${name}: primary at ${ours}, follower at ${theirs}\n${follower.log.slice(-3000)}\n${primary.log.slice(-3000)}`,
    );
    const [expected, found] = [await digest(primary.path(name)), await digest(follower.path(name))];
    expect(found, `${name} at ${ours}`).toBe(expected);
    expect(found).toMatch(/^ok /);
  }
}

export async function startPair(
  set: Readonly<Record<string, string>> = {},
): Promise<{primary: TestNode; follower: TestNode; destroy: () => Promise<void>}> {
  const primary = await TestNode.start({role: 'primary', set});
  const follower = await TestNode.start({role: 'follower', primary, set});
  return {
    primary,
    follower,
    destroy: async () => {
      await follower.destroy();
      await primary.destroy();
    },
  };
}

/** Lets `commit` happen, then puts the primary's data directory back to what it was before, as an old copy of its disk. It is stopped then. */
export async function forgetCommits(primary: TestNode, commit: () => Promise<void>): Promise<void> {
  expect(await primary.stop()).toBe(0);
  const saved = join(primary.directory, 'saved');
  await cp(primary.data, saved, {recursive: true, preserveTimestamps: true});
  await primary.restart();
  await commit();
  expect(await primary.stop()).toBe(0);
  await rm(primary.data, {recursive: true});
  await cp(saved, primary.data, {recursive: true, preserveTimestamps: true});
}
