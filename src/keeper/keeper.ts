import {type ChildProcess, spawn} from 'node:child_process';
import {readFileSync, readSync, writeSync} from 'node:fs';
import type {Readable} from 'node:stream';
import {answerInit} from '../fuse/init.ts';
import {abortConnection, mount, mountedAt, openFuseDevice, unmount, waitingRequests} from '../fuse/mount.ts';

/**
 * The keeper holds the mount. It opens /dev/fuse, mounts, and starts the daemon with the descriptor; when the daemon
 * dies the connection lives on in the keeper's copy of the descriptor, apps' requests wait in the kernel, and a new
 * daemon asks for those that got no answer (FUSE_NOTIFY_RESEND). It knows nothing of SQLite, files or networks.
 */
export interface KeeperOptions {
  readonly directory: string;
  readonly allowOther: boolean;
  /** Program and arguments of the daemon; read again for each start, so that an upgrade takes effect. */
  readonly daemonCommand: () => readonly string[];
  /** Told the connection's number under /sys/fs/fuse/connections. */
  readonly mounted: (connection: number) => void;
  readonly log: (
    level: 'info' | 'warn' | 'error',
    message: string,
    fields?: Readonly<Record<string, unknown>>,
  ) => void;
}

/** What the keeper sends to a daemon. `release`: let go of the mount; `quit`: end now, another one goes on. */
export type KeeperMessage =
  | {readonly type: 'go'; readonly isResuming: boolean}
  | {readonly type: 'release'}
  | {readonly type: 'quit'};
/** What a daemon sends to the keeper. */
export type DaemonMessage =
  | {readonly type: 'loaded'}
  | {readonly type: 'serving'}
  | {readonly type: 'released'};

/** A daemon ends with this code when starting it again would not help; its own last line said why. */
export const EXIT_HOPELESS = 78; // EX_CONFIG of sysexits.h
/** Descriptors that the daemon finds open. */
export const FUSE_FD = 3;
export const HEARTBEAT_FD = 4;

/** Pauses before a daemon that did not get far is started again; after the last one the keeper gives up. */
const RESTART_DELAYS_MS = [0, 0, 100, 250, 500, 1000, 2000, 4000, 8000];
/** A daemon that served for so long had begun well: its end says nothing about the next one. */
const HEALTHY_AFTER_MS = 400;
const SIGKILL_BIT = 1n << 8n;
/** A spare daemon is loaded when the serving one has settled. */
const STANDBY_DELAY_MS = 150;
const TICK_MS = 1000;
const DYING_CHECK_MS = 50;
const SILENT_TICKS_MAX = 5;
/** Before it serves it recovers what its predecessor left, which can take long, and would take as long for the next one. */
const STARTING_SILENT_TICKS_MAX = 120;
const RELEASE_TIMEOUT_MS = 5000;
const UNMOUNT_TRIES = 20;
const UNMOUNT_RETRY_MS = 100;
const QUIT_TIMEOUT_MS = 2000;
/** At a stop nobody waits for the mount any more, and what is put away in order need not be looked at by the next start. */
const LAST_QUIT_TIMEOUT_MS = 60_000;

interface Daemon {
  readonly process: ChildProcess;
  isLoaded: boolean;
  /** When it began to serve (performance.now()), 0 before. */
  servingSinceMs: number;
  silentTicks: number;
}

export class Keeper {
  readonly #options: KeeperOptions;
  #fuseFd = -1;
  #connection = -1;
  #hasResend = false;
  #daemon: Daemon | undefined;
  /** The next daemon, loaded and waiting for its turn: loading takes longer than apps should wait. */
  #standby: Daemon | undefined;
  #isReloading = false;
  #state: 'running' | 'stopping' | 'ended' = 'running';
  #failureCount = 0;
  #hasServed = false;
  #end: (exitCode: number) => void = () => undefined;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Mounts and keeps a daemon running until told to stop. Resolves to the exit code. Throws `MountError` if it can't mount. */
  async run(): Promise<number> {
    this.#mount();
    const ended = new Promise<number>(resolve => {
      this.#end = resolve;
    });
    const timers = [
      setInterval(() => this.#watch(), TICK_MS),
      setInterval(() => this.#noticeDying(), DYING_CHECK_MS),
    ];
    process.on('SIGHUP', () => this.#reload());
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => this.#stop(signal));
    this.#start();
    const exitCode = await ended;
    for (const timer of timers) clearInterval(timer);
    return exitCode;
  }

  #mount(): void {
    this.#fuseFd = openFuseDevice();
    mount(this.#fuseFd, this.#options.directory, 'ferritefs', this.#options.allowOther);
    this.#connection = mountedAt(this.#options.directory)?.connection ?? -1;
    this.#options.mounted(this.#connection);
    const request = Buffer.alloc(8192);
    const size = readWaiting(this.#fuseFd, request);
    const init = answerInit(request.subarray(0, size));
    writeSync(this.#fuseFd, init.reply);
    this.#hasResend = init.hasResend;
    if (!init.hasResend)
      this.#options.log('warn', 'kernel before 6.9: apps lose their open files when the daemon restarts');
  }

  /** Puts the spare daemon in place, or a new one where there is none. */
  #start(): void {
    this.#daemon = this.#standby ?? this.#spawn();
    this.#standby = undefined;
    if (this.#daemon.isLoaded) this.#go(this.#daemon);
  }

  #prepareStandby(): void {
    if (this.#state === 'running' && this.#hasResend && this.#daemon !== undefined)
      this.#standby ??= this.#spawn();
  }

  #spawn(): Daemon {
    const [program, ...args] = this.#options.daemonCommand();
    const child = spawn(program ?? process.execPath, args, {
      stdio: ['ignore', 'inherit', 'inherit', this.#fuseFd, 'pipe', 'ipc'],
    });
    const daemon: Daemon = {process: child, isLoaded: false, servingSinceMs: 0, silentTicks: 0};
    const heartbeat = child.stdio[HEARTBEAT_FD] as Readable | null;
    heartbeat?.on('data', () => {
      daemon.silentTicks = 0;
    });
    heartbeat?.on('error', () => undefined);
    child.on('message', message => this.#hear(daemon, message as DaemonMessage));
    child.on('error', error => this.#options.log('error', 'cannot start daemon', {error}));
    child.once('close', (code, signal) => this.#exited(daemon, code, signal));
    return daemon;
  }

  #hear(daemon: Daemon, message: DaemonMessage): void {
    switch (message.type) {
      case 'loaded':
        daemon.isLoaded = true;
        if (daemon === this.#daemon) this.#go(daemon);
        else if (daemon === this.#standby && this.#isReloading) this.#takeOver();
        return;
      case 'serving':
        this.#hasServed = true;
        daemon.servingSinceMs = performance.now();
        setTimeout(() => this.#prepareStandby(), STANDBY_DELAY_MS).unref();
        return;
      case 'released':
        if (daemon === this.#daemon) void this.#unmount();
        return;
    }
  }

  #go(daemon: Daemon): void {
    send(daemon, {type: 'go', isResuming: this.#hasServed});
    if (this.#state === 'stopping') send(daemon, {type: 'release'});
  }

  #exited(daemon: Daemon, code: number | null, signal: string | null): void {
    if (daemon === this.#standby) {
      this.#standby = undefined;
      if (this.#isReloading)
        this.#options.log('error', 'new daemon ended before its turn; the old one goes on', {code, signal});
      this.#isReloading = false;
      return;
    }
    if (daemon !== this.#daemon || this.#state === 'ended') return;
    this.#daemon = undefined;
    if (code === EXIT_HOPELESS && !this.#hasServed) {
      this.#giveUp();
      return;
    }
    if (this.#state === 'stopping') {
      void this.#unmount();
      return;
    }
    if (code === 0 && mountedAt(this.#options.directory)?.connection !== this.#connection) {
      this.#finish(0);
      return;
    }
    if (this.#isReloading) {
      this.#isReloading = false;
      this.#start();
      return;
    }
    this.#restart(daemon, {code, signal});
  }

  #restart(daemon: Daemon, fields: Readonly<Record<string, unknown>>): void {
    if (daemon.servingSinceMs > 0 && performance.now() - daemon.servingSinceMs > HEALTHY_AFTER_MS)
      this.#failureCount = 0;
    const delayMs = RESTART_DELAYS_MS[this.#failureCount++];
    if (delayMs === undefined) {
      this.#options.log('error', 'daemon died again and again; giving up, apps will get errors', fields);
      this.#giveUp();
      return;
    }
    this.#options.log('warn', 'daemon died; starting it again', {...fields, delayMs});
    if (!this.#hasResend && this.#hasServed) this.#remount();
    if (delayMs === 0) this.#start();
    else setTimeout(() => this.#state === 'running' && this.#daemon === undefined && this.#start(), delayMs);
  }

  /** Kernels that can't resend: what was unanswered is lost, so apps must get errors rather than hang. */
  #remount(): void {
    abortConnection(this.#connection);
    unmount(this.#options.directory, true);
    this.#hasServed = false;
    this.#mount();
  }

  /** Looks once a second: requests wait and the daemon's loop does not go round. A pause of the whole machine stops these ticks too. */
  #watch(): void {
    const daemon = this.#daemon;
    if (daemon === undefined || !daemon.isLoaded || this.#state !== 'running') return;
    daemon.silentTicks++;
    const ticksMax = daemon.servingSinceMs > 0 ? SILENT_TICKS_MAX : STARTING_SILENT_TICKS_MAX;
    if (daemon.silentTicks < ticksMax || (waitingRequests(this.#connection) ?? 1) === 0) return;
    this.#options.log('error', 'daemon hangs while requests wait; replacing it', {pid: daemon.process.pid});
    daemon.process.kill('SIGKILL');
    // Not waited for: a thread of it that is stuck in the kernel is only freed by the new daemon's answers.
    this.#daemon = undefined;
    this.#restart(daemon, {pid: daemon.process.pid});
  }

  /**
   * A killed daemon whose thread waits in the kernel for an answer from the mount can't end before the next daemon
   * gives it, so nobody would tell us of its end.
   */
  #noticeDying(): void {
    const daemon = this.#daemon;
    if (daemon === undefined || this.#state !== 'running' || !isDying(daemon.process.pid)) return;
    this.#exited(daemon, null, 'SIGKILL');
  }

  /** Starts the installed version beside the running one and swaps them when it has loaded. */
  #reload(): void {
    if (this.#state !== 'running' || this.#isReloading || this.#daemon === undefined) return;
    this.#options.log('info', 'reloading');
    const outdated = this.#standby;
    this.#standby = undefined;
    outdated?.process.kill('SIGKILL');
    this.#isReloading = true;
    this.#standby = this.#spawn();
  }

  #takeOver(): void {
    const old = this.#daemon;
    if (old === undefined) return;
    send(old, {type: 'quit'});
    setTimeout(() => old.process.exitCode === null && old.process.kill('SIGKILL'), QUIT_TIMEOUT_MS).unref();
  }

  #stop(signal: string): void {
    if (this.#state === 'stopping') {
      this.#options.log('warn', 'stopping by force', {signal});
      this.#giveUp();
      return;
    }
    this.#state = 'stopping';
    this.#options.log('info', 'stopping', {signal});
    this.#standby?.process.kill('SIGKILL');
    if (this.#daemon === undefined) {
      void this.#unmount();
      return;
    }
    if (this.#daemon.isLoaded) send(this.#daemon, {type: 'release'});
    setTimeout(() => void this.#unmount(), RELEASE_TIMEOUT_MS).unref();
  }

  #isUnmounting = false;

  /** Unmounts while the daemon still serves; then it ends by itself. */
  async #unmount(): Promise<void> {
    if (this.#isUnmounting) return;
    this.#isUnmounting = true;
    for (
      let left = UNMOUNT_TRIES;
      mountedAt(this.#options.directory)?.connection === this.#connection;
      left--
    ) {
      const exitCode = await runUmount(this.#options.directory, left <= 0);
      if (exitCode === 0 || left < 0) break;
      if (left === UNMOUNT_TRIES)
        this.#options.log('warn', 'mount is in use; waiting for apps to close their files', {
          directory: this.#options.directory,
        });
      await new Promise(resolve => setTimeout(resolve, UNMOUNT_RETRY_MS));
    }
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.process.exitCode === null) {
      send(daemon, {type: 'quit'});
      await Promise.race([
        new Promise(resolve => daemon.process.once('close', resolve)),
        new Promise(resolve => setTimeout(resolve, LAST_QUIT_TIMEOUT_MS).unref()),
      ]);
    }
    this.#finish(0);
  }

  #giveUp(): void {
    const isForced = this.#state === 'stopping';
    abortConnection(this.#connection);
    unmount(this.#options.directory, true);
    this.#finish(isForced ? 0 : 1);
  }

  #finish(exitCode: number): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    for (const daemon of [this.#daemon, this.#standby]) daemon?.process.kill('SIGKILL');
    this.#end(exitCode);
  }
}

/** Whether the process has been killed and only waits for its threads to come out of the kernel (proc(5), status). */
function isDying(pid: number | undefined): boolean {
  let status = '';
  try {
    status = readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return false; // Gone for good: its exit is on its way to us.
  }
  const pending = /^ShdPnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return /^State:\s*[ZX]/m.test(status) || (BigInt(`0x${pending}`) & SIGKILL_BIT) !== 0n;
}

function send(daemon: Daemon, message: KeeperMessage): void {
  if (daemon.process.connected) daemon.process.send(message, () => undefined);
}

function runUmount(directory: string, lazy: boolean): Promise<number | null> {
  const child = spawn('umount', [...(lazy ? ['-l'] : []), directory], {stdio: 'ignore'});
  return new Promise(resolve => {
    child.once('error', () => resolve(null));
    child.once('close', resolve);
  });
}

/** The kernel queues FUSE_INIT while it mounts, so it is there within moments. */
function readWaiting(fd: number, target: Buffer): number {
  const clock = new Int32Array(new SharedArrayBuffer(4));
  for (let tries = 0; tries < 1000; tries++) {
    try {
      return readSync(fd, target);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
    Atomics.wait(clock, 0, 0, 5);
  }
  throw new Error('Cannot start FUSE session: the kernel sent no FUSE_INIT within 5 s');
}
