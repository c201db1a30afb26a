import {type ChildProcessWithoutNullStreams, spawn} from 'node:child_process';
import {once} from 'node:events';
import {createInterface} from 'node:readline';
import {fileURLToPath} from 'node:url';

/** Another process with one open connection. */
export class App {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  constructor(path: string, timeoutSeconds = 0) {
    const script = fileURLToPath(new URL('app.py', import.meta.url));
    this.#child = spawn('python3', [script, path, String(timeoutSeconds)]);
    this.#child.stderr.pipe(process.stderr);
    this.#lines = createInterface({input: this.#child.stdout})[Symbol.asyncIterator]();
  }

  /** Rows as arrays, or the error's text. */
  async run(sql: string): Promise<unknown> {
    this.#child.stdin.write(`${JSON.stringify(sql)}\n`);
    const {value} = await this.#lines.next();
    return JSON.parse(value);
  }

  async close(): Promise<void> {
    const closed = once(this.#child, 'close');
    this.#child.stdin.end();
    await closed;
  }
}
