import {once} from 'node:events';
import {readdirSync, rmSync} from 'node:fs';
import {unlink} from 'node:fs/promises';
import {createServer, type Server} from 'node:http';
import {join} from 'node:path';
import type {Worker} from 'node:worker_threads';
import {EngineSink} from '../cluster/engine-sink.ts';
import {EngineSource} from '../cluster/engine-source.ts';
import type {NodeIdentity} from '../cluster/node-identity.ts';
import {PrimaryServer} from '../cluster/primary-server.ts';
import {ReplicationClient} from '../cluster/replication-client.ts';
import type {Config} from '../config/options.ts';
import type {ApplyEvent} from '../engine/apply-messages.ts';
import {ApplyClient} from '../engine/client/apply-client.ts';
import {FsClient} from '../engine/client/fs-client.ts';
import type {FsEvent, FsThreadData, ThreadData} from '../engine/messages.ts';
import {unmount} from '../fuse/mount.ts';
import type {Logger} from '../telemetry/log.ts';

export interface NodeOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly identity: NodeIdentity;
  /** Called when the kernel's requests are served. */
  readonly onServing: () => void;
  /** The fs thread, loaded. */
  readonly fsWorker: Worker;
  readonly thread: Pick<FsThreadData, 'fuseFd' | 'heartbeatFd' | 'isResuming' | 'epoch' | 'crashAt'>;
}

const LISTEN_RETRY_MS = 50;
const LISTEN_TRIES = 60;
const FOLLOWER_CHECK_MS = 1000;
const EXIT_SOFTWARE = 70; // EX_SOFTWARE of sysexits.h

/** One node: the threads of its engine, its role, and its connections to the others. */
export class Node {
  readonly ended: Promise<number>;
  readonly #options: NodeOptions;
  readonly #server: Server;
  readonly #fs: FsClient;
  readonly #data: ThreadData;
  readonly #following = new AbortController();
  #apply: ApplyClient | undefined;
  #source: EngineSource | undefined;
  #primaryServer: PrimaryServer | undefined;
  #sink: EngineSink | undefined;
  #followed: Promise<void> = Promise.resolve();
  #isReady = false;
  #end: (exitCode: number) => void = () => undefined;

  private constructor(options: NodeOptions, server: Server) {
    this.#options = options;
    this.#server = server;
    this.ended = new Promise(resolve => {
      this.#end = resolve;
    });
    const {config, identity, thread} = options;
    const role = config.leaseCandidate ? 'primary' : 'follower';
    this.#data = {
      fuseFd: thread.fuseFd,
      dataDirectory: config.dataDir,
      mountDirectory: config.fuseDir,
      role,
      term: role === 'primary' ? identity.beginTerm(thread.epoch.run) : identity.term,
      compress: config.dataCompress,
      pendingByte: config.debugPendingByte,
      followerWrites: config.fuseFollowerWrites,
      epoch: thread.epoch,
      crashAt: thread.crashAt,
      keepsAwake: config.fuseKeepAwake,
    };
    this.#fs = FsClient.start(
      options.fsWorker,
      {
        ...this.#data,
        heartbeatFd: thread.heartbeatFd,
        spinNs: config.fuseSpinUs * 1000,
        isResuming: thread.isResuming,
      },
      event => this.#hearFs(event),
      error => this.#fail('fs thread failed', error),
    );
    setInterval(() => this.#prune(), config.dataRetentionMonitorIntervalMs || 60_000).unref();
  }

  /**
   * At a first start the port is bound before anything else is touched. A daemon that takes over serves the mount first: its
   * predecessor may hold the port until an answer from the mount lets it end.
   */
  static async start(options: NodeOptions): Promise<Node> {
    const {config, thread, log} = options;
    const server = createServer((_request, response) => response.writeHead(404).end());
    if (!thread.isResuming) await listen(server, config.httpAddr);
    const node = new Node(options, server);
    if (thread.isResuming) void listenEventually(server, config.httpAddr, log);
    return node;
  }

  /** Lets go of everything in the mount, so that it can be unmounted; requests are still served. */
  async release(): Promise<void> {
    this.#following.abort();
    await this.#followed;
    await this.#primaryServer?.close();
    await this.#apply?.ask({type: 'release'});
    await this.#apply?.close();
  }

  /** Ends in good order; the mount stays. */
  quit(): void {
    this.#following.abort();
    this.#fs.send({type: 'stop'});
  }

  /** The keeper is gone: nobody else holds the mount, so it goes too. */
  async abandon(): Promise<void> {
    this.#options.log.error('keeper is gone; unmounting');
    await this.release();
    unmount(this.#options.config.fuseDir, true);
    this.quit();
  }

  #hearFs(event: FsEvent): void {
    switch (event.type) {
      case 'log':
        this.#options.log[event.level](event.message, event.fields);
        return;
      case 'ready':
        this.#options.onServing();
        if (this.#data.role === 'primary') this.#serveFollowers(event);
        else this.#startApply();
        return;
      case 'opened':
        void this.#apply
          ?.ask({type: 'attach', id: event.id})
          .catch(error => this.#options.log.debug('database not yet opened', {error}));
        return;
      case 'remove':
        void unlink(event.path).catch(error => {
          if (error.code !== 'ENOENT') this.#options.log.warn('unlinked file not removed', {error});
        });
        return;
      case 'stopped':
        this.#end(0);
        return;
      default:
        this.#source?.hear(event);
    }
  }

  #serveFollowers({databases, dropped}: Extract<FsEvent, {type: 'ready'}>): void {
    const {config, identity, log} = this.#options;
    const {term, compress, pendingByte} = this.#data;
    const incoming = join(config.dataDir, 'incoming');
    for (const name of readdirSync(incoming)) rmSync(join(incoming, name), {force: true}); // A predecessor's.
    const clusterId = identity.clusterId;
    if (clusterId === undefined) throw new Error('Cannot serve followers: this node belongs to no cluster');
    this.#source = new EngineSource({
      fs: this.#fs,
      clusterId,
      nodeId: identity.nodeId,
      term,
      databases,
      dropped,
      compress,
      pendingByte,
      temporaryPrefix: join(incoming, `out-${process.pid}-`),
    });
    const server = PrimaryServer.start({
      source: this.#source,
      log,
      now: Date.now,
      onHigherTerm: (higher, nodeId) =>
        log.error('another node has seen a higher term; is there a second primary?', {
          term: String(higher),
          nodeId,
        }),
    });
    this.#primaryServer = server;
    this.#server.on('upgrade', () => this.#fs.send({type: 'wants-records', isWanted: true}));
    setInterval(
      () => this.#fs.send({type: 'wants-records', isWanted: server.followers().length > 0}),
      FOLLOWER_CHECK_MS,
    ).unref();
    server.attach(this.#server);
    this.#ready({role: 'primary', databases: databases.length, term: String(term)});
  }

  #startApply(): void {
    this.#fs.send({
      type: 'primary',
      hostname: this.#options.config.leaseHostname ?? this.#options.config.leaseAdvertiseUrl,
    });
    this.#apply = new ApplyClient(
      {...this.#data, sync: 'normal'},
      event => this.#hearApply(event),
      error => this.#fail('apply thread failed', error),
    );
  }

  #hearApply(event: ApplyEvent): void {
    if (event.type === 'log') this.#options.log[event.level](event.message, event.fields);
    else if (event.type === 'databases') this.#follow(event);
    else this.#sink?.hear(event);
  }

  #follow({databases}: Extract<ApplyEvent, {type: 'databases'}>): void {
    const {config, identity, log} = this.#options;
    if (this.#apply === undefined || config.leaseAdvertiseUrl === undefined) return;
    this.#sink = new EngineSink({apply: this.#apply, fs: this.#fs, identity, databases});
    const client = new ReplicationClient({
      primaryUrl: config.leaseAdvertiseUrl,
      sink: this.#sink,
      log,
      limits: {reconnectDelayMs: config.leaseReconnectDelayMs},
      now: Date.now,
      random: Math.random,
      onState: ({at}) =>
        at === 'caught-up' &&
        this.#ready({role: 'follower', databases: [...(this.#sink?.databases() ?? [])].length}),
    });
    if (config.skipSync) this.#ready({role: 'follower', databases: databases.length});
    this.#followed = client.run(this.#following.signal);
  }

  #ready(fields: Readonly<Record<string, unknown>>): void {
    if (this.#isReady) return;
    this.#isReady = true;
    this.#options.log.info('ready', fields);
  }

  #prune(): void {
    const {
      dataRetentionMs,
      dataRetentionBytesMax: bytesMax,
      dataRetentionMonitorIntervalMs,
    } = this.#options.config;
    if (dataRetentionMonitorIntervalMs <= 0 || (dataRetentionMs <= 0 && bytesMax === undefined)) return;
    const olderThanMs = dataRetentionMs > 0 ? dataRetentionMs : Number.POSITIVE_INFINITY; // 0: no age is too old
    const report = (error: unknown) => this.#options.log.error('log not pruned', {error});
    if (this.#source !== undefined)
      this.#fs
        .ask<'prune'>({kind: 'prune', keepFrom: this.#source.needed, olderThanMs, bytesMax})
        .catch(report);
    this.#apply?.ask({type: 'prune', olderThanMs, bytesMax}).catch(report);
  }

  #fail(message: string, error: Error): void {
    this.#options.log.error(message, {error});
    process.exit(EXIT_SOFTWARE); // Nothing may go on after a broken assertion; the keeper starts anew.
  }
}

async function listen(server: Server, {host, port}: Config['httpAddr']): Promise<void> {
  try {
    const listening = once(server, 'listening'); // Rejects at an 'error', and takes only its own listeners away.
    server.listen({port, ...(host === undefined ? {} : {host})});
    await listening;
  } catch (error) {
    throw explain(error, host, port);
  }
}

/** Tries until the port is free; says so when that takes long. */
async function listenEventually(server: Server, address: Config['httpAddr'], log: Logger): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await listen(server, address);
      return;
    } catch (error) {
      if (tries % LISTEN_TRIES === 0) log.error('followers cannot connect', {error});
    }
    await new Promise(resolve => setTimeout(resolve, LISTEN_RETRY_MS));
  }
}

function explain(cause: unknown, host: string | undefined, port: number): Error {
  const {code} = cause as NodeJS.ErrnoException;
  const state =
    code === 'EADDRINUSE'
      ? 'another program uses the port; stop it or choose another http.addr'
      : String(code);
  return Object.assign(new Error(`Cannot listen on ${host ?? ''}:${port}: ${state}`, {cause}), {
    code: code ?? 'LISTEN_FAILED',
  });
}
