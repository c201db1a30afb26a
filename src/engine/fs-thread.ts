import {readSync, writeSync} from 'node:fs';
import {setImmediate as turn} from 'node:timers/promises';
import {parentPort, receiveMessageOnPort} from 'node:worker_threads';
import {KernelNotifier} from '../fuse/notify.ts';
import {FuseReplies} from '../fuse/reply.ts';
import {FuseRequest} from '../fuse/request.ts';
import {FuseSession, type SessionHandler} from '../fuse/session.ts';
import {KeepAwake} from '../lib/keep-awake.ts';
import {createPoller} from '../lib/libc.ts';
import {Crc64Factory} from '../ltx/crc64.ts';
import {LockBytes} from '../sqlite/lock-bytes.ts';
import {Catalog} from './catalog.ts';
import {dataPaths, diskThatCrashesAt} from './data-directory.ts';
import {Flusher} from './flusher.ts';
import {FollowedFiles} from './followed-files.ts';
import {FsPrimary} from './fs-primary.ts';
import type {FsCommand, FsThreadData} from './messages.ts';
import type {MountContext} from './mount/context.ts';
import type {DatabaseHooks, WaitList} from './mount/database-hooks.ts';
import {DirectoryListings} from './mount/directory-listing.ts';
import {dispatch} from './mount/dispatch.ts';
import {InodeTable} from './mount/inode-table.ts';
import {VirtualFiles} from './mount/virtual-files.ts';
import {Outbox} from './outbox.ts';

const FLUSH_THREADS = 2;
const FLUSH_THREADS_MAX = 6;
/** How long the loop goes round before the thread's own event loop gets a turn. */
const TURN_MS = 50;
const HEARTBEAT = Buffer.from('.');
const NEVER_HEARD_LAG_MS = 2_147_483_647;

/** The fs thread: serves the kernel's requests and, on a primary, captures what they do to databases. Never waits but in poll. */
class FsThread implements SessionHandler {
  readonly #data: FsThreadData;
  readonly #outbox: Outbox;
  readonly #request = new FuseRequest();
  readonly #context: MountContext;
  readonly #primary: FsPrimary | undefined;
  readonly #followed: FollowedFiles | undefined;
  readonly #keepAwake: KeepAwake;
  readonly #resumed: WaitList[] = [];
  readonly #wakeCount = new Uint8Array(8);
  #hostname: string | undefined;
  #heardMs = 0;

  constructor(data: FsThreadData, crc64: Crc64Factory) {
    this.#data = data;
    this.#keepAwake = new KeepAwake(data.keepsAwake);
    this.#outbox = new Outbox(data.port, data.taken);
    const {fuseFd, wakeFd} = data;
    const paths = dataPaths(data.dataDirectory);
    const disk = diskThatCrashesAt(data.crashAt);
    const inodes = new InodeTable(paths.files, paths.hidden, path =>
      this.#outbox.add({type: 'remove', path}),
    );
    const flusher = new Flusher({
      fuseFd,
      wakeFd,
      threadCount: FLUSH_THREADS,
      threadCountMax: FLUSH_THREADS_MAX,
    });
    const catalog = Catalog.open(disk, paths.catalog);
    const lockBytes = new LockBytes(data.pendingByte);
    if (data.role === 'primary') {
      this.#primary = new FsPrimary({
        data,
        store: {disk, directory: paths.databases, crc64, lockBytes, compress: data.compress},
        catalog,
        flusher,
        inodes,
        outbox: this.#outbox,
        resume: waits => this.#resumed.push(waits),
      });
    } else {
      this.#followed = new FollowedFiles({
        inodes,
        catalog,
        databasesDirectory: paths.databases,
        filesDirectory: paths.files,
        followerWrites: data.followerWrites,
        onOpened: id => this.#outbox.add({type: 'opened', id}),
      });
    }
    this.#context = this.#makeContext(inodes, flusher, this.#primary?.files ?? this.#followed);
  }

  async run(): Promise<void> {
    const {fuseFd, wakeFd, spinNs, isResuming} = this.#data;
    this.#primary?.start(() => this.#beat());
    if (isResuming) this.#context.notifier.resend();
    if (this.#primary === undefined) this.#outbox.add({type: 'ready', databases: [], dropped: []});
    const poller = createPoller([fuseFd, wakeFd]);
    const session = new FuseSession({fuseFd, poller, request: this.#request, handler: this, spinNs});
    let reason = session.run(TURN_MS);
    for (; reason === 'paused'; reason = session.run(TURN_MS)) await turn();
    this.#primary?.close();
    this.#keepAwake.close();
    this.#outbox.add({type: 'stopped', reason});
    this.#outbox.flush();
  }

  handle(request: FuseRequest): void {
    this.#keepAwake.note();
    dispatch(this.#context, request);
    if (this.#resumed.length > 0) this.#serveResumed();
    this.#context.flusher.poll();
  }

  drainMessages(): boolean {
    try {
      readSync(this.#data.wakeFd, this.#wakeCount);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
    this.#context.flusher.poll();
    if (this.#resumed.length > 0) this.#serveResumed();
    for (
      let received = receiveMessageOnPort(this.#data.port);
      received !== undefined;
      received = receiveMessageOnPort(this.#data.port)
    ) {
      if (!this.#obey(received.message as FsCommand)) return false;
    }
    return true;
  }

  work(): boolean {
    const hasMore = this.#primary?.work() ?? false;
    if (this.#resumed.length > 0) this.#serveResumed();
    this.#outbox.poll();
    return hasMore || !this.#outbox.isEmpty;
  }

  heartbeat(): void {
    this.#keepAwake.tick();
    this.#context.flusher.poll();
    this.#primary?.sweep();
    this.#beat();
  }

  /** Tells the keeper that this thread gets on. */
  #beat(): void {
    if (this.#data.heartbeatFd < 0) return;
    try {
      writeSync(this.#data.heartbeatFd, HEARTBEAT);
    } catch (error) {
      const {code} = error as NodeJS.ErrnoException;
      if (code !== 'EAGAIN' && code !== 'EPIPE') throw error;
    }
  }

  #obey(command: FsCommand): boolean {
    switch (command.type) {
      case 'stop':
        return false;
      case 'primary':
        this.#hostname = command.hostname;
        return true;
      case 'heard':
        this.#heardMs = command.timestampMs;
        return true;
      case 'followed':
        this.#followed?.add(command.id, command.name);
        return true;
      case 'moving':
        this.#followed?.moving(command.id, command.name);
        return true;
      case 'attached':
        this.#followed?.attached(command.id);
        return true;
      case 'unfollowed':
        this.#followed?.remove(command.id);
        return true;
      default:
        this.#primary?.obey(command);
        return true;
    }
  }

  /** Requests that waited are served as if they came just now. */
  #serveResumed(): void {
    for (let waits = this.#resumed.shift(); waits !== undefined; waits = this.#resumed.shift()) {
      for (const bytes of waits.takeAll()) {
        bytes.copy(this.#request.buffer);
        this.#request.length = bytes.length;
        dispatch(this.#context, this.#request);
      }
    }
  }

  #lagMs(): number {
    if (this.#data.role === 'primary') return 0;
    return this.#heardMs === 0 ? NEVER_HEARD_LAG_MS : Date.now() - this.#heardMs;
  }

  #makeContext(inodes: InodeTable, flusher: Flusher, hooks: DatabaseHooks | undefined): MountContext {
    if (hooks === undefined) throw new Error('Cannot start fs thread: it has no role');
    return {
      inodes,
      flusher,
      hooks,
      replies: new FuseReplies(this.#data.fuseFd),
      notifier: new KernelNotifier(this.#data.fuseFd),
      listings: new DirectoryListings(inodes),
      virtualFiles: new VirtualFiles({
        primaryHostname: () => this.#hostname,
        lagMs: () => this.#lagMs(),
        positionText: path => hooks.positionText(path),
      }),
    };
  }
}

const crc64 = await Crc64Factory.open();
// Started before its turn, so that loading costs no time when it comes.
parentPort?.once('message', async (data: FsThreadData) => {
  await new FsThread(data, crc64).run();
  data.port.close();
});
