import type {FuseAttributes} from '../../fuse/reply.ts';
import {BACKING_NODEID_MAX} from './inode-table.ts';

const PRIMARY_NODEID = BACKING_NODEID_MAX + 1;
const LAG_NODEID = BACKING_NODEID_MAX + 2;
/** Node IDs of `<database>-pos`, handed out as they are asked for and found again by their path. */
const POSITION_NODEID_MIN = BACKING_NODEID_MAX + 16;
const POSITION_FILES_MAX = 65_536;

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
  readonly #positionPaths = new Map<number, string>();
  readonly #positionNodeids = new Map<string, number>();
  #positionNodeidNext = POSITION_NODEID_MIN;

  constructor(sources: VirtualFileSources) {
    this.#sources = sources;
  }

  isVirtual(nodeid: number): boolean {
    return nodeid > BACKING_NODEID_MAX;
  }

  /** Node ID of the virtual file at `path` (relative to the mount), or undefined when there is none. */
  find(path: string): number | undefined {
    if (path === '.primary') return this.#sources.primaryHostname() === undefined ? undefined : PRIMARY_NODEID;
    if (path === '.lag') return LAG_NODEID;
    if (!path.endsWith('-pos') || this.#sources.positionText(path.slice(0, -4)) === undefined) return undefined;
    return this.#positionNodeid(path);
  }

  /** The whole text, or undefined when the file is gone. */
  text(nodeid: number): string | undefined {
    if (nodeid === PRIMARY_NODEID) {
      const hostname = this.#sources.primaryHostname();
      return hostname === undefined ? undefined : `${hostname}\n`;
    }
    if (nodeid === LAG_NODEID) return formatLag(this.#sources.lagMs());
    const path = this.#positionPaths.get(nodeid);
    return path === undefined ? undefined : this.#sources.positionText(path.slice(0, -4));
  }

  attributes(nodeid: number, nowMs: number): FuseAttributes | undefined {
    const text = this.text(nodeid);
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

  #positionNodeid(path: string): number {
    const known = this.#positionNodeids.get(path);
    if (known !== undefined) return known;
    if (this.#positionNodeids.size >= POSITION_FILES_MAX) {
      this.#positionNodeids.clear();
      this.#positionPaths.clear();
    }
    const nodeid = this.#positionNodeidNext++;
    this.#positionNodeids.set(path, nodeid);
    this.#positionPaths.set(nodeid, path);
    return nodeid;
  }
}

/** Milliseconds as `.lag` shows them: sign, at least nine digits, newline. */
function formatLag(lagMs: number): string {
  const whole = Math.trunc(lagMs);
  return `${whole < 0 ? '-' : '+'}${String(Math.abs(whole)).padStart(9, '0')}\n`;
}
