import {mkdtempSync, rmSync} from 'node:fs';
import {mkdir} from 'node:fs/promises';
import {join} from 'node:path';
import {FerriteNode} from './ferrite-node.ts';
import {killLoads} from './load-process.ts';
import type {Column} from './measurement.ts';
import type {Options} from './options.ts';
import {Peer} from './peer.ts';

export interface Cluster {
  readonly primary: FerriteNode;
  readonly follower: FerriteNode;
}

/** A directory in which a load can run, and the table's column that it stands for. */
export interface Place {
  readonly column: Column;
  readonly directory: string;
}

/** Everything that is measured, side by side on one disk. Nodes start when they are first asked for. */
export class Rig {
  readonly directory: string;
  readonly #options: Options;
  readonly #nodes: FerriteNode[] = [];
  #peer: Peer | {readonly reason: string} | undefined;
  #alone: FerriteNode | undefined;
  #cluster: Cluster | undefined;

  constructor(options: Options) {
    this.#options = options;
    this.directory = mkdtempSync(join(options.directory, 'ferrite-bench-'));
  }

  /** Why fuse-native is not in the table, or undefined where it is (or was not asked for). */
  get peerMissing(): string | undefined {
    return this.#peer instanceof Peer ? undefined : this.#peer?.reason;
  }

  /** Whether followers are left out. */
  get isAlone(): boolean {
    return this.#options.isAlone;
  }

  /** Says on standard error what is going on: a run takes minutes. */
  tell(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  /** A new folder on the bare disk. */
  async folder(name: string): Promise<string> {
    const path = join(this.directory, name);
    await mkdir(path, {recursive: true});
    return path;
  }

  /** A primary without a follower. */
  async alone(): Promise<FerriteNode> {
    this.#alone ??= await this.startNode('alone');
    return this.#alone;
  }

  /** A primary with a follower. */
  async cluster(): Promise<Cluster> {
    if (this.#cluster === undefined) {
      const primary = await this.startNode('primary');
      this.#cluster = {primary, follower: await this.startNode('follower', primary)};
    }
    return this.#cluster;
  }

  /** All places for a load, the bare disk first. */
  async places(): Promise<Place[]> {
    const places: Place[] = [{column: 'bare', directory: await this.folder('bare')}];
    this.#peer ??= await Peer.start(await this.folder('peer'), this.#options.peerDirectory);
    if (this.#peer instanceof Peer) places.push({column: 'peer', directory: this.#peer.mount});
    places.push({column: 'alone', directory: (await this.alone()).mount});
    if (!this.isAlone) places.push({column: 'cluster', directory: (await this.cluster()).primary.mount});
    return places;
  }

  /** Makes a node, starts it, and sees to its end. */
  async startNode(name: string, primary?: FerriteNode): Promise<FerriteNode> {
    const node = await this.createNode(name, primary);
    await node.start();
    return node;
  }

  async createNode(name: string, primary?: FerriteNode): Promise<FerriteNode> {
    const node = await FerriteNode.create(join(this.directory, name), primary);
    this.#nodes.push(node);
    return node;
  }

  /** Ends every process, in order where possible, and removes all files. */
  async close(): Promise<void> {
    killLoads();
    for (const node of this.#nodes.reverse()) await node.destroy();
    if (this.#peer instanceof Peer) this.#peer.kill();
    rmSync(this.directory, {recursive: true, force: true, maxRetries: 10});
  }

  /** As `close`, at once: for a signal. */
  kill(): void {
    killLoads();
    for (const node of this.#nodes) node.kill();
    if (this.#peer instanceof Peer) this.#peer.kill();
    rmSync(this.directory, {recursive: true, force: true, maxRetries: 10});
  }
}
