import {type ChildProcessWithoutNullStreams, spawn} from 'node:child_process';
import {once} from 'node:events';
import {fileURLToPath} from 'node:url';

export interface ReaderResult {
  readonly reads: number;
  readonly versionMax: number;
  readonly busy: number;
  readonly errors: readonly string[];
}

export type ReaderKind = 'short' | 'long' | 'reopen' | 'python';

/** A process that reads the database over and over and checks what it sees. */
export class Reader {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #closed: Promise<unknown>;
  #output = '';

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    child.stdout.on('data', data => {
      this.#output += data;
    });
    child.stderr.pipe(process.stderr);
    // A reader that has found errors enough ends by itself.
    child.stdin.on('error', () => {});
    this.#closed = once(child, 'close');
  }

  static async start(path: string, kind: ReaderKind, cacheSize = 20): Promise<Reader> {
    const script = fileURLToPath(new URL(kind === 'python' ? 'reader.py' : 'reader.mjs', import.meta.url));
    const command = kind === 'python' ? 'python3' : process.execPath;
    const reader = new Reader(spawn(command, [script, path, kind, String(cacheSize)]));
    while (!reader.#output.includes('ready\n')) await once(reader.#child.stdout, 'data');
    return reader;
  }

  async stop(): Promise<ReaderResult> {
    this.#child.stdin.end('\n');
    await this.#closed;
    return JSON.parse(this.#output.trim().split('\n').at(-1) ?? '');
  }
}
