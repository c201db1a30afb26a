import type {FuseRequest} from '../../fuse/request.ts';
import type {Inode} from './inode-table.ts';

/** Requests that wait until something else is done; then they are served as if they came just now. */
export class WaitList {
  #requests: Buffer[] = [];

  get count(): number {
    return this.#requests.length;
  }

  /** Keeps a copy of the request. Bounded by the kernel: each waiting thread of an app has one. */
  park(request: FuseRequest): void {
    this.#requests.push(Buffer.from(request.buffer.subarray(0, request.length)));
  }

  takeAll(): readonly Buffer[] {
    const taken = this.#requests;
    this.#requests = [];
    return taken;
  }
}

/** What is to become of a request: 0 goes on, a positive errno refuses, a wait list keeps it for later. */
export type Verdict = number | WaitList;
export const ALLOW = 0;

/**
 * How the mount's files tell the databases what happens to them. `before…` is asked before the backing file is
 * touched, the past tense is told after it was, and after the app has its answer where nothing hangs on that.
 */
export interface DatabaseHooks {
  beforeOpen(inode: Inode, flags: number, request: FuseRequest): Verdict;
  opened(inode: Inode): void;
  beforeCreate(parent: Inode, name: string, request: FuseRequest): Verdict;
  created(inode: Inode): void;
  beforeWrite(inode: Inode, offset: number, data: Buffer, request: FuseRequest): Verdict;
  wrote(inode: Inode, offset: number, size: number): void;
  beforeTruncate(inode: Inode, size: number, request: FuseRequest): Verdict;
  truncated(inode: Inode, size: number): void;
  beforeUnlink(inode: Inode, request: FuseRequest): Verdict;
  unlinked(inode: Inode, path: string): void;
  beforeRename(inode: Inode, target: Inode | undefined, newPath: string, request: FuseRequest): Verdict;
  renamed(inode: Inode, oldPath: string, newPath: string): void;
  beforeSync(inode: Inode, request: FuseRequest): Verdict;
  released(inode: Inode): void;
  /** Text of the virtual file `<database>-pos`, or undefined when `path` is no database. */
  positionText(path: string): string | undefined;
}
