import {once} from 'node:events';
import {createServer, type Server} from 'node:http';
import {type AddressInfo, connect, createServer as createTcpServer, type Socket} from 'node:net';
import {setTimeout as sleep} from 'node:timers/promises';
import {expect} from 'vitest';
import {type FollowerAck, PrimaryServer} from '../../src/cluster/primary-server.ts';
import {type FollowState, ReplicationClient} from '../../src/cluster/replication-client.ts';
import type {StreamLimits} from '../../src/cluster/stream-limits.ts';
import type {StreamLogger} from '../../src/cluster/stream-logger.ts';
import type {MemorySink} from './memory-sink.ts';
import type {MemorySource} from './memory-source.ts';

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Keeps what is logged. */
export class MemoryLog implements StreamLogger {
  readonly lines: LogLine[] = [];

  debug(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.lines.push({level: 'debug', message, fields});
  }

  info(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.lines.push({level: 'info', message, fields});
  }

  warn(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.lines.push({level: 'warn', message, fields});
  }

  error(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.lines.push({level: 'error', message, fields});
  }

  count(message: string): number {
    return this.lines.filter(line => line.message === message && line.level !== 'debug').length;
  }
}

export interface Primary {
  readonly url: string;
  readonly port: number;
  readonly server: PrimaryServer;
  readonly http: Server;
  readonly log: MemoryLog;
  readonly acks: FollowerAck[];
  readonly higherTerms: bigint[];
  stop(): Promise<void>;
}

export async function startPrimary(
  source: MemorySource,
  limits: Partial<StreamLimits> = {},
): Promise<Primary> {
  const log = new MemoryLog();
  const acks: FollowerAck[] = [];
  const higherTerms: bigint[] = [];
  const server = PrimaryServer.start({
    source,
    log,
    limits,
    now: () => Date.now(),
    onAck: ack => acks.push(ack),
    onHigherTerm: term => higherTerms.push(term),
  });
  const http = createServer((_request, response) => response.end());
  server.attach(http);
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const {port} = http.address() as AddressInfo;
  const stop = async () => {
    await server.close();
    http.closeAllConnections();
    await new Promise(resolve => http.close(resolve));
  };
  return {url: `http://127.0.0.1:${port}`, port, server, http, log, acks, higherTerms, stop};
}

export interface Follower {
  readonly client: ReplicationClient;
  readonly log: MemoryLog;
  readonly states: FollowState[];
  stop(): Promise<void>;
}

export function startFollower(
  sink: MemorySink,
  primaryUrl: string,
  limits: Partial<StreamLimits> = {},
): Follower {
  const log = new MemoryLog();
  const states: FollowState[] = [];
  const client = new ReplicationClient({
    primaryUrl,
    sink,
    log,
    limits: {reconnectDelayMinMs: 10, reconnectDelayMs: 50, ...limits},
    now: () => Date.now(),
    random: () => Math.random(),
    onState: state => states.push(state),
  });
  const stopping = new AbortController();
  const running = client.run(stopping.signal);
  const stop = async () => {
    stopping.abort();
    await running;
  };
  return {client, log, states, stop};
}

/** Waits until `condition` holds; fails with `what` when it does not in time. */
export async function until(what: string, condition: () => boolean, timeoutMs = 15_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await sleep(2);
  }
}

export function isEqual(source: MemorySource, sink: MemorySink): boolean {
  if (source.all.size !== sink.all.size) return false;
  for (const {id, name, position, term} of source.all.values()) {
    const copy = sink.all.get(id);
    if (copy === undefined || copy.name !== name || copy.position.txid !== position.txid) return false;
    if (copy.position.checksum !== position.checksum || copy.term !== term) return false;
  }
  return true;
}

/** The copy is the original, byte for byte, and nothing was asked of the sink that it does not promise. */
export function expectEqual(source: MemorySource, sink: MemorySink): void {
  expect(sink.violations).toEqual([]);
  expect([...sink.all.values()].map(({id, name}) => `${id} ${name}`).sort()).toEqual(
    [...source.all.values()].map(({id, name}) => `${id} ${name}`).sort(),
  );
  for (const {id, pages, position, term} of source.all.values()) {
    const copy = sink.get(id);
    expect({id, ...copy.position, term: copy.term}).toEqual({id, ...position, term});
    expect(copy.pages.count).toBe(pages.count);
    expect(copy.pages.checksum).toBe(pages.checksum);
    for (let pgno = 1; pgno <= pages.count; pgno++) {
      expect(Buffer.compare(copy.pages.get(pgno), pages.get(pgno))).toBe(0);
    }
  }
}

/** A TCP relay in front of a node, to break what goes through it. */
export class Relay {
  readonly port: number;
  readonly #server: ReturnType<typeof createTcpServer>;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  /** Bytes after which a connection is cut, counted from the primary's side; `undefined`: never. */
  cutAfterBytes: (() => number | undefined) | undefined;

  private constructor(server: ReturnType<typeof createTcpServer>, targetPort: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', near => this.#onConnection(near, targetPort));
  }

  static async start(targetPort: number): Promise<Relay> {
    const server = createTcpServer({allowHalfOpen: true});
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new Relay(server, targetPort);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get connectionCount(): number {
    return this.#pairs.size;
  }

  /** Cuts all connections. */
  drop(): void {
    for (const [near, far] of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  /** Passes nothing on any more, as a machine that has lost its power. */
  freeze(): void {
    for (const [near, far] of this.#pairs) {
      near.unpipe().pause();
      far.unpipe().pause();
    }
  }

  /** Ends the direction towards the follower only. */
  halfClose(): void {
    for (const [near, far] of this.#pairs) {
      far.unpipe();
      near.end();
    }
  }

  async stop(): Promise<void> {
    this.drop();
    await new Promise(resolve => this.#server.close(resolve));
  }

  #onConnection(near: Socket, targetPort: number): void {
    const far = connect({port: targetPort, host: '127.0.0.1', allowHalfOpen: true});
    const pair = [near, far] as const;
    this.#pairs.add(pair);
    const limit = this.cutAfterBytes?.();
    far.on('data', () => {
      if (limit !== undefined && far.bytesRead > limit) near.destroy();
    });
    near.pipe(far);
    far.pipe(near);
    for (const socket of pair) {
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#pairs.delete(pair);
        near.destroy();
        far.destroy();
      });
    }
  }
}

export function idOf(number: number): string {
  return number.toString(16).padStart(32, '0');
}

/** One page of `size` bytes that depends on `seed`. */
export function pageOf(seed: number, size = 512): Uint8Array {
  const page = new Uint8Array(size);
  let state = seed | 1;
  for (let index = 0; index < size; index++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    page[index] = state >>> 16;
  }
  return page;
}
