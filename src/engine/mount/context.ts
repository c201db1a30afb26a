import {type BigIntStats, lstatSync} from 'node:fs';
import {constants} from 'node:os';
import type {KernelNotifier} from '../../fuse/notify.ts';
import type {FuseReplies} from '../../fuse/reply.ts';
import {attributesOf, type FuseAttributes} from '../../fuse/reply.ts';
import type {FuseRequest} from '../../fuse/request.ts';
import type {Flusher} from '../flusher.ts';
import {type DatabaseHooks, type Verdict, WaitList} from './database-hooks.ts';
import type {DirectoryListings} from './directory-listing.ts';
import type {Inode, InodeTable} from './inode-table.ts';
import type {VirtualFiles} from './virtual-files.ts';

/** What every operation works with. */
export interface MountContext {
  readonly inodes: InodeTable;
  readonly replies: FuseReplies;
  readonly notifier: KernelNotifier;
  readonly flusher: Flusher;
  readonly hooks: DatabaseHooks;
  readonly virtualFiles: VirtualFiles;
  readonly listings: DirectoryListings;
}

/** One handler of one opcode. What it throws becomes the errno of the answer. */
export type Operation = (context: MountContext, request: FuseRequest) => void;

/** An operation fails with this errno (positive). */
export class Errno extends Error {
  override readonly name = 'Errno';
  readonly errno: number;

  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

/** The errno of what an operation threw, or undefined where it is no error of the world. */
export function errnoOf(error: unknown): number | undefined {
  if (error instanceof Errno) return error.errno;
  const {errno} = error as NodeJS.ErrnoException;
  return typeof errno === 'number' && errno !== 0 ? Math.abs(errno) : undefined;
}

export function inodeOf(context: MountContext, nodeid: number): Inode {
  const inode = context.inodes.get(nodeid);
  if (inode === undefined) throw new Errno(constants.errno.ENOENT);
  return inode;
}

/** Whether the request goes on now. If not it was parked; a refusal throws its errno. */
export function passes(verdict: Verdict, request: FuseRequest): boolean {
  if (verdict instanceof WaitList) {
    verdict.park(request);
    return false;
  }
  if (verdict !== 0) throw new Errno(verdict);
  return true;
}

/** A 64-bit offset or size of the request that a file can have here: Node's calls take numbers below 2^53. */
export function offsetAt(request: FuseRequest, at: number): number {
  const offset = request.u64(at);
  if (offset > Number.MAX_SAFE_INTEGER - 2 ** 31) throw new Errno(constants.errno.EFBIG);
  return offset;
}

/** Refuses to make `name` in `parent` where a virtual file has that name: it would be hidden by ours. */
export function refuseVirtualName(context: MountContext, parent: Inode, name: string): void {
  if (context.virtualFiles.isReserved(relativeName(context, parent, name)))
    throw new Errno(constants.errno.EACCES);
}

/** Path of `name` in `parent` relative to the mount. */
export function relativeName(context: MountContext, parent: Inode, name: string): string {
  const above = context.inodes.relativePath(parent);
  return above === '' ? name : `${above}/${name}`;
}

export function lstatBacking(path: string): BigIntStats | undefined {
  return lstatSync(path, {bigint: true, throwIfNoEntry: false});
}

/** The attributes that the kernel is told: the backing file's, under our node ID. */
export function attributes(inode: Inode, stats: BigIntStats): FuseAttributes {
  const found = attributesOf(inode.nodeid, stats);
  if (!inode.isHidden) return found;
  return {...found, nlink: inode.isDirectory ? 0 : found.nlink - 1};
}
