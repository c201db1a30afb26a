import {type ChildProcess, spawn} from 'node:child_process';
import {fileURLToPath} from 'node:url';

/** The repository: child processes find better-sqlite3 from here. */
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const TIMEOUT_MS = 120_000;

export interface AppResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** An app in a process of its own: a mount that hangs hangs only it. Killed after a while. */
export class App {
  readonly process: ChildProcess;
  readonly ended: Promise<AppResult>;
  #stdout = '';
  #stderr = '';

  constructor(
    program: string,
    args: readonly string[],
    input = '',
    env: Readonly<Record<string, string>> = {},
  ) {
    this.process = spawn(program, args, {cwd: ROOT, env: {...process.env, ...env}});
    const timer = setTimeout(() => this.process.kill('SIGKILL'), TIMEOUT_MS);
    this.process.stdout?.on('data', bytes => {
      this.#stdout += String(bytes);
    });
    this.process.stderr?.on('data', bytes => {
      this.#stderr += String(bytes);
    });
    this.process.stdin?.on('error', () => undefined);
    this.process.stdin?.end(input);
    this.ended = new Promise(resolve => {
      this.process.once('close', code => {
        clearTimeout(timer);
        resolve({code, stdout: this.#stdout, stderr: this.#stderr});
      });
    });
  }

  /** What it has printed so far. */
  get stdout(): string {
    return this.#stdout;
  }

  /** Its output, once it has ended well. */
  async output(): Promise<string> {
    const {code, stdout, stderr} = await this.ended;
    if (code !== 0) throw new Error(`app ended with ${code}: ${stdout}\n${stderr}`);
    return stdout;
  }
}

/** Runs `script` with better-sqlite3; in it `Database`, `path` and `print(value)` are at hand. */
export function sqliteApp(path: string, script: string): App {
  const prelude = `const Database = require('better-sqlite3'); const fs = require('node:fs'); const path = process.argv[1];
    const print = value => fs.writeSync(1, String(value) + '\\n');`;
  return new App(process.execPath, ['-e', `${prelude}\n${script}`, '--', path]);
}

export async function runSqlite(path: string, script: string): Promise<string> {
  return await sqliteApp(path, script).output();
}

export async function runShell(path: string, sql: string): Promise<string> {
  return await new App('sqlite3', ['-bail', path], sql).output();
}

export async function runPython(path: string, script: string): Promise<string> {
  return await new App('python3', ['-c', script, path]).output();
}

export async function runCommand(program: string, ...args: readonly string[]): Promise<string> {
  return await new App(program, args).output();
}
