import {type ChildProcess, spawn} from 'node:child_process';
import {DemoError, type WaitOptions, within} from './wait.ts';

const STDERR_CHARS_MAX = 4000;
const STOP_MS = 5_000;
const KILLED_MS = 3_000;

export interface ProgramOptions {
  readonly name: string;
  readonly command: readonly [file: string, ...args: string[]];
  /** Told when the program fails, or ends though it should run until it is stopped. */
  readonly failed?: (error: DemoError) => void;
}

type Outcome = {readonly code: number | null; readonly signal: NodeJS.Signals | null};

/** An application of the demonstration, started as anybody would start it. It prints lines; the last one is kept. */
export class Program {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #outcome: Promise<Outcome>;
  #lastLine = '';
  #partialLine = '';
  #stderr = '';
  #isStopping = false;

  constructor(options: ProgramOptions) {
    this.name = options.name;
    const [file, ...args] = options.command;
    // A process group of its own: Ctrl-C is for the demonstration, which then stops everything in order.
    this.#child = spawn(file, args, {detached: true, stdio: ['ignore', 'pipe', 'pipe']});
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => this.#noteOutput(text));
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = `${this.#stderr}${text}`.slice(-STDERR_CHARS_MAX);
    });
    this.#outcome = new Promise(resolve => {
      this.#child.once('error', error => {
        this.#stderr += error.message;
        resolve({code: null, signal: null});
      });
      this.#child.once('close', (code, signal) => resolve({code, signal}));
    });
    this.#outcome.then(outcome => {
      if (!this.#isStopping) options.failed?.(this.#failure(outcome));
    });
  }

  /** The last whole line that the program printed. */
  get lastLine(): string {
    return this.#lastLine;
  }

  /** Waits for a program that ends by itself and returns its last line. Throws `DEMO_PROGRAM_FAILED`. */
  async result(options: WaitOptions): Promise<string> {
    const outcome = await within(options, this.#outcome);
    if (outcome.code !== 0) throw this.#failure(outcome);
    return this.#lastLine;
  }

  /** Asks the program to end, then ends it by force; afterwards it is gone. Throws when it had found a fault. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const {pid} = this.#child;
    if (pid === undefined) return;
    this.#child.kill('SIGTERM');
    let outcome = await this.#outcomeWithin(STOP_MS);
    if (outcome === undefined) {
      killGroup(pid);
      outcome = await this.#outcomeWithin(KILLED_MS);
    }
    const isOrderly = outcome?.code === 0 || outcome?.signal === 'SIGTERM';
    if (!isOrderly) throw this.#failure(outcome ?? {code: null, signal: null});
  }

  async #outcomeWithin(timeoutMs: number): Promise<Outcome | undefined> {
    const options = {what: `stop ${this.name}`, timeoutMs, signal: new AbortController().signal};
    return await within(options, this.#outcome).catch(() => undefined);
  }

  #failure({code, signal}: Outcome): DemoError {
    const how = signal ?? (code === null ? 'not ended' : `exit code ${code}`);
    return new DemoError('DEMO_PROGRAM_FAILED', `Cannot run ${this.name}: ${how}\n${this.#stderr}`.trimEnd());
  }

  #noteOutput(text: string): void {
    const lines = `${this.#partialLine}${text}`.split('\n');
    this.#partialLine = lines.pop() ?? '';
    this.#lastLine = lines.at(-1) ?? this.#lastLine;
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
