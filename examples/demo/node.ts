import {type ChildProcess, spawn} from 'node:child_process';
import {closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {abortConnection, mountedAt, unmount} from '../../src/fuse/mount.ts';
import {DemoError, waitFor, within} from './wait.ts';

const READY_MS = 60_000;
const FILE_MS = 20_000;
const STOP_MS = 10_000;
const KILLED_MS = 3_000;

export interface NodeOptions {
  readonly name: string;
  /** Holds the node's config, log, data and mount. */
  readonly directory: string;
  readonly port: number;
  readonly primaryPort: number;
  /** The Node that runs the daemon, and the daemon's program. */
  readonly runtime: string;
  readonly main: string;
  /** Told when the node ends without having been stopped. */
  readonly failed: (error: DemoError) => void;
}

/** One node of the demonstration: `ferrite mount` with a config, a data directory and a mount of its own. */
export class DemoNode {
  readonly name: string;
  readonly mount: string;
  readonly #options: NodeOptions;
  readonly #config: string;
  readonly #data: string;
  readonly #log: string;
  #keeper: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #isStopping = false;

  constructor(options: NodeOptions) {
    const {name, directory} = options;
    this.name = name;
    this.mount = join(directory, 'mnt');
    this.#options = options;
    this.#config = join(directory, 'ferrite.yml');
    this.#data = join(directory, 'data');
    this.#log = join(directory, 'log');
  }

  get isPrimary(): boolean {
    return this.#options.port === this.#options.primaryPort;
  }

  /** Starts the node and waits until it serves its mount. */
  async start(signal: AbortSignal): Promise<void> {
    mkdirSync(this.mount, {recursive: true});
    writeFileSync(this.#config, this.#configText());
    const log = openSync(this.#log, 'a');
    const command = [this.#options.main, 'mount', '-config', this.#config, '-no-expand-env'];
    // A process group of its own: Ctrl-C must reach the applications in the mount before it reaches the mount.
    const keeper = spawn(this.#options.runtime, command, {detached: true, stdio: ['ignore', log, log]});
    closeSync(log);
    this.#keeper = keeper;
    this.#ended = new Promise(resolve => {
      keeper.once('error', error => this.#noteEnd(error.message, resolve));
      keeper.once('exit', (code, by) => this.#noteEnd(by ?? `exit code ${code}`, resolve));
    });
    const isReady = async () => (this.#logText().includes('msg="ready"') ? true : undefined);
    await waitFor({what: `start ${this.name}`, timeoutMs: READY_MS, signal}, isReady);
  }

  path(name: string): string {
    return join(this.mount, name);
  }

  /** The position of `database` as the mount shows it; undefined while the node doesn't have the database. */
  async position(database: string, signal: AbortSignal): Promise<string | undefined> {
    return (await this.#readMounted(`${database}-pos`, signal))?.trim();
  }

  /** Milliseconds behind the primary. */
  async lagMs(signal: AbortSignal): Promise<number | undefined> {
    const text = await this.#readMounted('.lag', signal);
    return text === undefined ? undefined : Number(text);
  }

  /** Name of the primary that this node follows. */
  async primaryName(signal: AbortSignal): Promise<string | undefined> {
    return (await this.#readMounted('.primary', signal))?.trim();
  }

  logTail(lineCount: number): string {
    return this.#logText().trimEnd().split('\n').slice(-lineCount).join('\n');
  }

  /** Ends the node, by force if need be; afterwards nothing is mounted. Nothing to do for one that never started. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#keeper?.kill('SIGTERM');
    if (!(await this.#hasEnded(STOP_MS))) await this.#kill();
    const mounted = mountedAt(this.mount);
    if (mounted === undefined) return;
    abortConnection(mounted.connection);
    unmount(this.mount, true);
  }

  async #kill(): Promise<void> {
    this.#keeper?.kill('SIGKILL');
    const pidFile = join(this.#data, 'daemon.pid');
    const daemonPid = existsSync(pidFile) ? Number(readFileSync(pidFile, 'utf8')) : 0;
    // A number that another process has got since would be somebody else's.
    const command = daemonPid > 0 ? readCommand(daemonPid) : '';
    if (command.includes(this.#config)) process.kill(daemonPid, 'SIGKILL');
    const mounted = mountedAt(this.mount);
    if (mounted !== undefined) abortConnection(mounted.connection); // Frees whoever waits in it.
    await this.#hasEnded(KILLED_MS);
  }

  async #hasEnded(timeoutMs: number): Promise<boolean> {
    const options = {what: `stop ${this.name}`, timeoutMs, signal: new AbortController().signal};
    return await within(
      options,
      this.#ended.then(() => true),
    ).catch(() => false);
  }

  #noteEnd(how: string, resolve: () => void): void {
    resolve();
    if (this.#isStopping) return;
    this.#options.failed(
      new DemoError('DEMO_NODE_ENDED', `Cannot keep ${this.name} running: it ended with ${how}`),
    );
  }

  #logText(): string {
    return existsSync(this.#log) ? readFileSync(this.#log, 'utf8') : '';
  }

  async #readMounted(name: string, signal: AbortSignal): Promise<string | undefined> {
    const options = {what: `read "${this.path(name)}"`, timeoutMs: FILE_MS, signal};
    try {
      return await within(options, readFile(this.path(name), 'utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  #configText(): string {
    const {port, primaryPort} = this.#options;
    return [
      'fuse:',
      `  dir: ${JSON.stringify(this.mount)}`,
      'data:',
      `  dir: ${JSON.stringify(this.#data)}`,
      'http:',
      `  addr: "127.0.0.1:${port}"`,
      'lease:',
      '  type: static',
      '  hostname: primary',
      `  advertise-url: "http://127.0.0.1:${primaryPort}"`,
      `  candidate: ${this.isPrimary}`,
      '',
    ].join('\n');
  }
}

function readCommand(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return ''; // Ended meanwhile.
  }
}
