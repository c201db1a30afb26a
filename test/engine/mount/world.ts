import {lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {Flusher} from '../../../src/engine/flusher.ts';
import type {MountContext} from '../../../src/engine/mount/context.ts';
import {ALLOW, type DatabaseHooks, type Verdict} from '../../../src/engine/mount/database-hooks.ts';
import {DirectoryListings} from '../../../src/engine/mount/directory-listing.ts';
import {dispatch} from '../../../src/engine/mount/dispatch.ts';
import {InodeTable} from '../../../src/engine/mount/inode-table.ts';
import {VirtualFiles} from '../../../src/engine/mount/virtual-files.ts';
import {KernelNotifier} from '../../../src/fuse/notify.ts';
import {FuseReplies} from '../../../src/fuse/reply.ts';
import {FuseRequest} from '../../../src/fuse/request.ts';
import {Written} from '../../fuse/struct-layout.ts';

export interface Answer {
  readonly errno: number;
  readonly unique: bigint;
  readonly body: Buffer;
}

/** Notes what the databases are told. `verdict` is what they say to whatever they are asked. */
class RecordedHooks implements DatabaseHooks {
  readonly told: string[] = [];
  verdict: Verdict = ALLOW;

  beforeOpen = () => this.verdict;
  opened = () => undefined;
  beforeCreate = () => this.verdict;
  created = () => undefined;
  beforeWrite = () => this.verdict;
  wrote = () => undefined;
  beforeTruncate = () => this.verdict;
  truncated = () => undefined;
  beforeUnlink = () => this.verdict;
  unlinked = (_inode: unknown, path: string) => void this.told.push(`unlinked ${path}`);
  beforeRename = () => this.verdict;
  renamed = (_inode: unknown, oldPath: string, newPath: string) =>
    void this.told.push(`renamed ${oldPath} ${newPath}`);
  beforeSync = () => this.verdict;
  released = () => undefined;
  positionText = () => undefined;
}

/** The operations of a mount over a folder of its own, without a kernel: requests are made by hand. */
export class World {
  readonly directory = mkdtempSync(join(tmpdir(), 'ferrite-world-'));
  readonly files = join(this.directory, 'files');
  readonly hidden = join(this.directory, 'hidden');
  readonly hooks = new RecordedHooks();
  readonly #answers = new Written();
  readonly #notifications = new Written();
  #unique = 2n;
  context: MountContext;

  constructor() {
    mkdirSync(this.files);
    mkdirSync(this.hidden);
    this.context = this.#makeContext();
  }

  /** Another daemon takes over: nothing is known but what is on the disk. */
  restart(): void {
    this.context = this.#makeContext();
  }

  /** Serves one request. `undefined` when it got no answer. */
  ask(
    opcode: number,
    nodeid: number,
    body: Buffer,
    options: {readonly isResent?: boolean; readonly uid?: number} = {},
  ): Answer | undefined {
    const request = new FuseRequest();
    const {buffer} = request;
    this.#unique += 2n;
    request.length = 40 + body.length;
    buffer.fill(0, 0, 40);
    buffer.writeUInt32LE(request.length, 0);
    buffer.writeUInt32LE(opcode, 4);
    buffer.writeBigUInt64LE(options.isResent === true ? this.#unique | (1n << 63n) : this.#unique, 8);
    buffer.writeBigUInt64LE(BigInt(nodeid), 16);
    buffer.writeUInt32LE(options.uid ?? 0, 24);
    buffer.writeUInt32LE(options.uid ?? 0, 28);
    body.copy(buffer, 40);
    dispatch(this.context, request);
    const [answer] = this.#answers.take();
    if (answer === undefined) return undefined;
    return {
      errno: Math.abs(answer.readInt32LE(4)),
      unique: answer.readBigUInt64LE(8),
      body: answer.subarray(16),
    };
  }

  /** Everything below `files`, as text: names, types, modes, owners, link counts and contents. */
  tree(folder = this.files): string[] {
    const found: string[] = [];
    for (const name of readdirSync(folder).sort()) {
      const path = join(folder, name);
      const {mode, uid, gid, nlink} = lstatSync(path);
      const kind = mode & 0o170000;
      const content =
        kind === 0o100000 ? readFileSync(path, 'latin1') : kind === 0o120000 ? readlinkSync(path) : '';
      found.push(
        `${path.slice(this.files.length)} ${mode.toString(8)} ${uid} ${gid} ${kind === 0o040000 ? '-' : nlink} ${content}`,
      );
      if (kind === 0o040000) found.push(...this.tree(path));
    }
    return found;
  }

  close(): void {
    this.#answers.close();
    this.#notifications.close();
    rmSync(this.directory, {recursive: true});
  }

  #makeContext(): MountContext {
    const inodes = new InodeTable(this.files, this.hidden);
    return {
      inodes,
      hooks: this.hooks,
      replies: new FuseReplies(this.#answers.fd),
      notifier: new KernelNotifier(this.#notifications.fd),
      listings: new DirectoryListings(inodes),
      virtualFiles: new VirtualFiles({
        primaryHostname: () => undefined,
        lagMs: () => 0,
        positionText: () => undefined,
      }),
      flusher: {flush: () => undefined} as unknown as Flusher, // Its threads need the built files.
    };
  }
}

export function names(...texts: readonly string[]): Buffer {
  return Buffer.from(texts.map(text => `${text}\0`).join(''));
}

export function u32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, 4 * index);
  return bytes;
}

export function u64(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [index, value] of values.entries()) bytes.writeBigUInt64LE(BigInt(value), 8 * index);
  return bytes;
}
