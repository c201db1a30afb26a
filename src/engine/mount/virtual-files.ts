import type {FuseAttributes} from '../../fuse/reply.ts';
import {BACKING_NODEID_MAX, type InodeTable} from './inode-table.ts';

/** `<database>-pos` has the node ID of the database's file plus this, so that a new daemon knows it too. */
const POSITION_NODEID_BASE = BACKING_NODEID_MAX + 1;
const PRIMARY_NODEID = POSITION_NODEID_BASE + BACKING_NODEID_MAX + 1;
const LAG_NODEID = PRIMARY_NODEID + 1;
const POSITION_SUFFIX = '-pos';

export interface VirtualFileSources {
  /** Name of the primary while this node follows one; undefined on the primary and when none is known. */
  readonly primaryHostname: () => string | undefined;
  /** Milliseconds behind the primary. */
  readonly lagMs: () => number;
  readonly positionText: (path: string) => string | undefined;
}

/** The files that exist only in the mount, as LiteFS has them: `.primary`, `.lag`, `<database>-pos`. Read-only, never listed. */
export class VirtualFiles {
  readonly #sources: VirtualFileSources;

  constructor(sources: VirtualFileSources) {
    this.#sources = sources;
  }

  isVirtual(nodeid: number): boolean {
    return nodeid > BACKING_NODEID_MAX;
  }

  /** Whether nothing else may be made at `path`, relative to the mount. `.primary` stays reserved while it is not there. */
  isReserved(path: string): boolean {
    return path === '.primary' || path === '.lag' || this.#positionText(path) !== undefined;
  }

  /** Node ID of the virtual file at `path` (relative to the mount), or undefined when there is none. */
  find(path: string, inodes: InodeTable): number | undefined {
    if (path === '.primary')
      return this.#sources.primaryHostname() === undefined ? undefined : PRIMARY_NODEID;
    if (path === '.lag') return LAG_NODEID;
    if (this.#positionText(path) === undefined) return undefined;
    const database = inodes.inoAt(path.slice(0, -POSITION_SUFFIX.length));
    return database === undefined ? undefined : POSITION_NODEID_BASE + database;
  }

  /** The whole text, or undefined when the file is gone. */
  text(nodeid: number, inodes: InodeTable): string | undefined {
    if (nodeid === PRIMARY_NODEID) {
      const hostname = this.#sources.primaryHostname();
      return hostname === undefined ? undefined : `${hostname}\n`;
    }
    if (nodeid === LAG_NODEID) return formatLag(this.#sources.lagMs());
    const database = inodes.get(nodeid - POSITION_NODEID_BASE);
    if (database === undefined || database.isHidden) return undefined;
    return this.#sources.positionText(inodes.relativePath(database));
  }

  attributes(nodeid: number, nowMs: number, inodes: InodeTable): FuseAttributes | undefined {
    const text = this.text(nodeid, inodes);
    if (text === undefined) return undefined;
    const timeNs = BigInt(nowMs) * 1_000_000n;
    return {
      nodeid,
      size: Buffer.byteLength(text),
      blocks: 0,
      atimeNs: timeNs,
      mtimeNs: timeNs,
      ctimeNs: timeNs,
      mode: 0o100444,
      nlink: 1,
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      rdev: 0,
      blksize: 4096,
    };
  }

  #positionText(path: string): string | undefined {
    return path.endsWith(POSITION_SUFFIX)
      ? this.#sources.positionText(path.slice(0, -POSITION_SUFFIX.length))
      : undefined;
  }
}

/** Milliseconds as `.lag` shows them: sign, at least nine digits, newline. */
function formatLag(lagMs: number): string {
  const whole = Math.trunc(lagMs);
  return `${whole < 0 ? '-' : '+'}${String(Math.abs(whole)).padStart(9, '0')}\n`;
}
