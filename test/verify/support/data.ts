import {type ChildProcess, execFile, spawn} from 'node:child_process';
import {cpSync, mkdtempSync, readdirSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import {Disk} from '../../../src/lib/disk.ts';
import {verifyDataDirectory} from '../../../src/verify/data-directory.ts';
import type {Finding} from '../../../src/verify/finding.ts';

const APP = fileURLToPath(new URL('app.mjs', import.meta.url));
const MAIN = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
const APP_MS = 20_000;

/** Runs SQL in a process of its own, since a mount that hangs must not take the tests along. */
export async function runApp(path: string, ...statements: string[]): Promise<void> {
  await promisify(execFile)(process.execPath, [APP, path, ...statements], {
    timeout: APP_MS,
    killSignal: 'SIGKILL',
  });
}

/** As `runApp`, and leaves the connection open; resolves when the SQL is done. Kill it. */
export async function holdApp(path: string, ...statements: string[]): Promise<ChildProcess> {
  const app = spawn(process.execPath, [APP, path, 'hold', ...statements], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise<void>((resolve, reject) => {
    app.stdout?.once('data', () => resolve());
    app.once('exit', code => reject(new Error(`app ended with ${code}`)));
  });
  return app;
}

export async function killApp(app: ChildProcess): Promise<void> {
  const ended = new Promise(resolve => app.once('exit', resolve));
  app.kill('SIGKILL');
  await ended;
}

export interface CommandResult {
  readonly code: number | string | null | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** `ferrite verify DIRECTORY`. */
export async function runCommand(directory: string): Promise<CommandResult> {
  return await new Promise(resolve => {
    execFile(process.execPath, [MAIN, 'verify', directory], {timeout: 60_000}, (error, stdout, stderr) =>
      resolve({code: error === null ? 0 : error.code, stdout, stderr}),
    );
  });
}

export async function findings(directory: string, pendingByte?: number): Promise<Finding[]> {
  const found: Finding[] = [];
  const options = pendingByte === undefined ? {} : {pendingByte};
  for await (const finding of verifyDataDirectory(new Disk(), directory, options)) found.push(finding);
  return found;
}

/** `violation CODE path` and `note CODE path`, each once. */
export function summarize(found: readonly Finding[]): string[] {
  return [...new Set(found.map(({level, code, path}) => `${level} ${code} ${path}`))].sort();
}

export function violations(found: readonly Finding[]): Finding[] {
  return found.filter(({level}) => level === 'violation');
}

const copies: string[] = [];

/** A copy to damage. */
export function copyOf(directory: string): string {
  const copy = mkdtempSync(join(tmpdir(), 'ferrite-verify-'));
  copies.push(copy);
  cpSync(directory, copy, {recursive: true, preserveTimestamps: true});
  return copy;
}

export function removeCopies(): void {
  for (const copy of copies.splice(0)) rmSync(copy, {recursive: true, force: true});
}

/** Paths of all files below `directory`, relative to it. */
export function listFiles(directory: string, below = ''): string[] {
  return readdirSync(join(directory, below), {withFileTypes: true}).flatMap(entry => {
    const path = join(below, entry.name);
    return entry.isDirectory() ? listFiles(directory, path) : [path];
  });
}
