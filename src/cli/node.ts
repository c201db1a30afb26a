import type {Config} from '../config/options.ts';
import type {NodeIdentity} from '../cluster/node-identity.ts';
import {FsClient} from '../engine/fs-client.ts';
import type {FsEvent, FsThreadData, ThreadData} from '../engine/messages.ts';
import {unmount} from '../fuse/mount.ts';
import type {Logger} from '../telemetry/log.ts';

export interface NodeOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly identity: NodeIdentity;
  /** Names the keeper under which this daemon runs. */
  readonly run: string;
  readonly thread: Pick<FsThreadData, 'fuseFd' | 'heartbeatFd' | 'isResuming' | 'isNewBoot' | 'crashAt'>;
}

/** One node: the threads of its engine, its role, and its connections to the others. */
export class Node {
  readonly ended: Promise<number>;
  readonly #options: NodeOptions;
  readonly #fs: FsClient;
  #end: (exitCode: number) => void = () => undefined;

  private constructor(options: NodeOptions) {
    this.#options = options;
    this.ended = new Promise(resolve => {
      this.#end = resolve;
    });
    const {config, identity, thread, run} = options;
    const role = config.leaseCandidate ? 'primary' : 'follower';
    const data: ThreadData = {
      fuseFd: thread.fuseFd,
      dataDirectory: config.dataDir,
      mountDirectory: config.fuseDir,
      role,
      term: role === 'primary' ? identity.beginTerm(run) : identity.term,
      compress: config.dataCompress,
      pendingByte: config.debugPendingByte,
      followerWrites: config.fuseFollowerWrites,
      isNewBoot: thread.isNewBoot,
      crashAt: thread.crashAt,
    };
    this.#fs = new FsClient(
      {...data, heartbeatFd: thread.heartbeatFd, spinNs: config.fuseSpinUs * 1000, isResuming: thread.isResuming},
      event => this.#hear(event),
      error => this.#fail(error),
    );
  }

  static async start(options: NodeOptions): Promise<Node> {
    return new Node(options);
  }

  /** Lets go of everything in the mount, so that it can be unmounted; requests are still served. */
  async release(): Promise<void> {}

  /** Ends in good order; the mount stays. */
  quit(): void {
    this.#fs.send({type: 'stop'});
  }

  /** The keeper is gone: nobody else holds the mount, so it goes too. */
  async abandon(): Promise<void> {
    this.#options.log.error('keeper is gone; unmounting');
    await this.release();
    unmount(this.#options.config.fuseDir, true);
    this.quit();
  }

  #hear(event: FsEvent): void {
    switch (event.type) {
      case 'log':
        this.#options.log[event.level](event.message, event.fields);
        return;
      case 'ready':
        this.#options.log.info('ready', {databases: event.databases.length});
        return;
      case 'stopped':
        this.#end(0);
        return;
      default:
        return;
    }
  }

  #fail(error: Error): void {
    this.#options.log.error('fs thread failed', {error});
    process.exit(70); // Nothing may go on after a broken assertion; the keeper starts anew.
  }
}
