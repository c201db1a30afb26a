import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import {existsSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {mkdir, readFile} from 'node:fs/promises';
import {createServer} from 'node:net';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {abortConnection, mountedAt, unmount} from '../src/fuse/mount.ts';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const START_MS = 60_000;
const STOP_MS = 20_000;
const READ_MS = 5000;
const LOG_SIZE_MAX = 1 << 20;
const LOG_TAIL_SIZE = 4000;

/** A node of FerriteFS as an operator runs it: `ferrite mount` with a config file, in a folder of its own. */
export class FerriteNode {
  readonly directory: string;
  readonly mount: string;
  readonly data: string;
  readonly url: string;
  readonly #config: string;
  #keeper: ChildProcess | undefined;
  #log = '';

  private constructor(directory: string, port: number, primary: FerriteNode | undefined) {
    this.directory = directory;
    this.mount = join(directory, 'mnt');
    this.data = join(directory, 'data');
    this.url = `http://127.0.0.1:${port}`;
    this.#config = [
      `fuse: {dir: ${JSON.stringify(this.mount)}}`,
      `data: {dir: ${JSON.stringify(this.data)}}`,
      `http: {addr: "127.0.0.1:${port}"}`,
      `lease: {type: static, hostname: primary, advertise-url: "${(primary ?? {url: this.url}).url}", candidate: ${primary === undefined}}`,
      '',
    ].join('\n');
  }

  /** Makes a node, a follower of `primary` or else a primary, without starting it. */
  static async create(directory: string, primary?: FerriteNode): Promise<FerriteNode> {
    const node = new FerriteNode(directory, await freePort(), primary);
    await mkdir(node.mount, {recursive: true});
    writeFileSync(join(directory, 'ferrite.yml'), node.#config);
    return node;
  }

  get daemonPid(): number {
    return Number(readFileSync(join(this.data, 'daemon.pid'), 'utf8'));
  }

  path(name: string): string {
    return join(this.mount, name);
  }

  /** Starts the node. Returns how long it took until it said "ready". */
  async start(): Promise<number> {
    this.#log = '';
    const start = performance.now();
    const child = spawn(process.execPath, [MAIN, 'mount', '-config', join(this.directory, 'ferrite.yml')], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#keeper = child;
    const isReady = new Promise<number>(resolve => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (text: string) => {
          this.#log = (this.#log + text).slice(-LOG_SIZE_MAX);
          if (this.#log.includes('msg="ready"')) resolve(performance.now() - start);
        });
      }
    });
    const isGone = once(child, 'exit').then(() => undefined);
    const elapsedMs = await Promise.race([isReady, isGone, sleep(START_MS, undefined, {ref: false})]);
    if (elapsedMs === undefined)
      throw new Error(`Cannot start node: not ready\n${this.#log.slice(-LOG_TAIL_SIZE)}`);
    return elapsedMs;
  }

  get logTail(): string {
    return this.#log.slice(-LOG_TAIL_SIZE);
  }

  async stop(): Promise<void> {
    const keeper = this.#keeper;
    if (keeper === undefined || keeper.exitCode !== null || keeper.signalCode !== null) return;
    keeper.kill('SIGTERM');
    const isStopped = await Promise.race([
      once(keeper, 'exit').then(() => true),
      sleep(STOP_MS, false, {ref: false}),
    ]);
    if (!isStopped) this.kill();
  }

  /** kill -9 of the daemon; the keeper starts another. */
  killDaemon(): void {
    process.kill(this.daemonPid, 'SIGKILL');
  }

  /** Ends everything at once and takes the mount away. */
  kill(): void {
    this.#keeper?.kill('SIGKILL');
    if (existsSync(join(this.data, 'daemon.pid'))) killIfThere(this.daemonPid);
    const mounted = mountedAt(this.mount);
    if (mounted === undefined) return;
    abortConnection(mounted.connection);
    unmount(this.mount, true);
  }

  /** Stops the node, by force where it has to, and removes its files. */
  async destroy(): Promise<void> {
    await this.stop();
    this.kill();
    // Retried: a process that was killed may be ending, with a file to create yet.
    rmSync(this.directory, {recursive: true, force: true, maxRetries: 10});
  }

  /** The database's position, or undefined while there is none. */
  async position(name: string): Promise<string | undefined> {
    const reading = readFile(this.path(`${name}-pos`), 'utf8').catch(() => undefined);
    return (await Promise.race([reading, sleep(READ_MS, undefined, {ref: false})]))?.trim();
  }

  /** Waits until this follower stands where `primary` stands. Throws after `timeoutMs`. */
  async catchUp(primary: FerriteNode, name: string, timeoutMs: number): Promise<void> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const [here, there] = await Promise.all([this.position(name), primary.position(name)]);
      if (here !== undefined && here === there) return;
      if (performance.now() > end)
        throw new Error(`Cannot catch up: follower is at ${here}, primary at ${there}\n${this.logTail}`);
      await sleep(20);
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
