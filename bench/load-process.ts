import {type ChildProcess, fork} from 'node:child_process';
import {fileURLToPath} from 'node:url';
import type {Job, Message} from './jobs.ts';

const LOAD = fileURLToPath(new URL('./load.js', import.meta.url));
const running = new Set<ChildProcess>();

/** A load generator at work. */
export class LoadProcess<Result> {
  readonly #job: Job;
  readonly #child: ChildProcess;
  readonly #ready: Promise<void>;
  readonly #result: Promise<Result>;

  /** Starts a process for `job`, which ends by itself or, for the jobs that go on, by `stop`. */
  constructor(job: Job) {
    this.#job = job;
    const child = fork(LOAD, [JSON.stringify(job)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    });
    this.#child = child;
    running.add(child);
    const failure = new Promise<never>((_, reject) => {
      const fail = (text: string) => reject(new Error(`Cannot ${job.kind} "${job.path}": ${text}`));
      child.on('message', (message: Message) => message.type === 'failed' && fail(message.text));
      child.once('exit', (code, signal) => {
        running.delete(child);
        fail(`load generator ended with ${signal ?? code}`); // Without effect when its result has come.
      });
    });
    const ready = new Promise<void>(resolve => {
      child.on('message', (message: Message) => message.type === 'ready' && resolve());
    });
    const result = new Promise<Result>(resolve => {
      child.on('message', (message: Message) => message.type === 'done' && resolve(message.result as Result));
    });
    this.#ready = Promise.race([ready, failure]);
    this.#result = Promise.race([result, failure]);
    for (const promise of [this.#ready, this.#result]) promise.catch(() => undefined); // Whoever waits hears of it.
  }

  /** Resolves when a job that goes on has begun. */
  async ready(): Promise<this> {
    await this.#ready;
    return this;
  }

  /** The result of a job that ends by itself. */
  async result(timeoutMs = 300_000): Promise<Result> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), timeoutMs);
    try {
      return await this.#result;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends a job that goes on. */
  async stop(): Promise<Result> {
    if (this.#child.connected) this.#child.send(`stop ${this.#job.kind}`);
    return await this.result(60_000);
  }
}

export async function load<Result>(job: Job): Promise<Result> {
  return await new LoadProcess<Result>(job).result();
}

/** Ends what an error left running. */
export function killLoads(): void {
  for (const child of running) child.kill('SIGKILL');
}
