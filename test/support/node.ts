import {type ChildProcess, spawn} from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import {createServer} from 'node:net';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {abortConnection, mountedAt, unmount} from '../../src/fuse/mount.ts';
import type {LossyDisk} from './lossy-disk.ts';

const MAIN =
  process.env.FERRITE_TEST_MAIN ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const START_MS = 60_000;
const STOP_MS = 60_000;
/** Test files run in several processes at once: each begins somewhere below the ports that the kernel gives out. */
let portNext = 20_000 + Math.floor(Math.random() * 12_000);

async function freePort(): Promise<number> {
  for (;;) {
    const port = portNext++;
    const server = createServer();
    const isFree = await new Promise<boolean>(resolve => {
      server.once('error', () => resolve(false));
      server.listen(port, () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise(resolve => server.close(resolve));
    return port;
  }
}

export interface NodeSettings {
  readonly role: 'primary' | 'follower';
  /** Follower: the primary's node. */
  readonly primary?: TestNode;
  /** YAML lines to add, for example `fuse: {…}` keys as `fuse.follower-writes: readonly`. */
  readonly set?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** A program that runs the keeper, with its arguments. */
  readonly under?: readonly string[];
  /** Where the data directory is, instead of an ordinary folder. */
  readonly disk?: LossyDisk;
}

/** A real node of FerriteFS: its own keeper and daemon, mount, data directory and port. */
export class TestNode {
  readonly directory: string;
  readonly mount: string;
  readonly data: string;
  readonly port: number;
  readonly settings: NodeSettings;
  #keeper: ChildProcess | undefined;
  #killed = -1;
  #exit: Promise<number | null> = Promise.resolve(null);

  private constructor(directory: string, port: number, settings: NodeSettings) {
    this.directory = directory;
    this.mount = join(directory, 'mnt');
    this.data = join(directory, 'data');
    this.port = port;
    this.settings = settings;
  }

  /** Makes a node and waits until it says "ready". */
  static async start(settings: NodeSettings): Promise<TestNode> {
    const directory = mkdtempSync(join(tmpdir(), 'ferrite-test-'));
    const node = new TestNode(directory, await freePort(), settings);
    mkdirSync(node.mount);
    if (settings.disk !== undefined) {
      mkdirSync(node.data);
      await settings.disk.mount(node.data);
    }
    node.#writeConfig();
    await node.restart();
    return node;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get log(): string {
    return existsSync(this.#logPath) ? readFileSync(this.#logPath, 'utf8') : '';
  }

  get #logPath(): string {
    return join(this.directory, 'log');
  }

  /** Backing path of a file in the mount. */
  backing(name: string): string {
    return join(this.data, 'files', name);
  }

  path(name: string): string {
    return join(this.mount, name);
  }

  get keeperPid(): number {
    return this.#keeper?.pid ?? -1;
  }

  get daemonPid(): number {
    return Number(readFileSync(join(this.data, 'daemon.pid'), 'utf8'));
  }

  /** Starts the keeper again, after `stop` or a kill. */
  async restart(): Promise<void> {
    const readyBefore = countOf(this.log, 'msg="ready"');
    const output = openSync(this.#logPath, 'a');
    const command = [process.execPath, MAIN, 'mount', '-config', join(this.directory, 'ferrite.yml')];
    const [program = '', ...args] = [...(this.settings.under ?? []), ...command];
    const child = spawn(program, args, {
      env: {...process.env, ...this.settings.env},
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    this.#keeper = child;
    this.#exit = new Promise(resolve => child.once('exit', code => resolve(code)));
    const exited = this.#exit.then(code => {
      throw new Error(`keeper ended with ${code} before it was ready:\n${this.log}`);
    });
    await Promise.race([
      until(
        () => countOf(this.log, 'msg="ready"') > readyBefore,
        START_MS,
        () => `not ready:\n${this.log}`,
      ),
      exited,
    ]);
    exited.catch(() => undefined);
  }

  /** Runs another command of ferrite with this node's config. Rejects unless it exits with 0. */
  async command(name: string, ...args: readonly string[]): Promise<void> {
    const child = spawn(
      process.execPath,
      [MAIN, name, '-config', join(this.directory, 'ferrite.yml'), ...args],
      {stdio: ['ignore', 'ignore', 'inherit']},
    );
    const code = await new Promise(resolve => child.once('exit', resolve));
    if (code !== 0) throw new Error(`ferrite ${name} ended with ${code}`);
  }

  /** SIGTERM; resolves to the exit code. */
  async stop(): Promise<number | null> {
    this.#keeper?.kill('SIGTERM');
    return await Promise.race([this.#exit, sleep(STOP_MS).then(() => -1)]);
  }

  /** kill -9 of the daemon that serves now: the keeper starts another. */
  async killDaemon(): Promise<void> {
    await until(
      () => this.daemonPid !== this.#killed && isRunning(this.daemonPid),
      START_MS,
      () => `no daemon serves:\n${this.log}`,
    );
    this.#killed = this.daemonPid;
    process.kill(this.#killed, 'SIGKILL');
  }

  /** kill -9 of keeper and daemon. */
  async killAll(): Promise<void> {
    const pid = existsSync(join(this.data, 'daemon.pid')) ? this.daemonPid : -1;
    this.#keeper?.kill('SIGKILL');
    if (pid > 0) killIfThere(pid);
    await this.#exit;
  }

  /** The machine goes at once, and with it everything on `settings.disk` that was not flushed. */
  async losePower(): Promise<void> {
    await this.killAll();
    const mounted = mountedAt(this.mount);
    if (mounted !== undefined) {
      abortConnection(mounted.connection);
      unmount(this.mount, true);
    }
    await this.settings.disk?.losePower();
  }

  /** Ends whatever is left and removes everything. For `afterEach`. */
  async destroy(): Promise<void> {
    if (this.#keeper?.exitCode === null && this.#keeper.signalCode === null) await this.killAll();
    const mounted = mountedAt(this.mount);
    if (mounted !== undefined) {
      abortConnection(mounted.connection);
      unmount(this.mount, true);
    }
    await this.settings.disk?.destroy();
    rmSync(this.directory, {recursive: true, force: true});
  }

  #writeConfig(): void {
    const {role, primary, set} = this.settings;
    const values: Record<string, string> = {
      'fuse.dir': this.mount,
      'data.dir': this.data,
      'http.addr': `":${this.port}"`,
      'lease.type': 'static',
      'lease.hostname': role === 'primary' ? 'primary' : 'primary',
      'lease.advertise-url': primary?.url ?? this.url,
      'lease.candidate': String(role === 'primary'),
      ...set,
    };
    const sections = new Map<string, string[]>();
    for (const [key, value] of Object.entries(values)) {
      const [section = '', name] = key.split('.');
      const lines = sections.get(section) ?? [];
      lines.push(name === undefined ? value : `  ${name}: ${value}`);
      sections.set(section, lines);
    }
    const yaml = [...sections].map(([section, lines]) =>
      lines[0]?.startsWith('  ') ? `${section}:\n${lines.join('\n')}\n` : `${section}: ${lines[0]}\n`,
    );
    writeFileSync(join(this.directory, 'ferrite.yml'), yaml.join(''));
  }
}

/** The marks of a stopped node's databases in use are those that an earlier start of the machine left. */
export function pretendReboot(node: TestNode): void {
  const active = join(node.data, 'active');
  for (const id of readdirSync(active)) {
    const mark = readFileSync(join(active, id), 'utf8');
    writeFileSync(join(active, id), mark.replace(/^\S+/, 'another-start-of-the-machine'));
  }
}

/** Polls `condition` until it holds; throws with `describe()` after `timeoutMs`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  timeoutMs: number,
  describe: () => string,
): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`Not within ${timeoutMs} ms: ${describe()}`);
    await sleep(10);
  }
}

function countOf(text: string, part: string): number {
  return text.split(part).length - 1;
}

function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
