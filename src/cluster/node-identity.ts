import {randomBytes} from 'node:crypto';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import type {Disk} from '../lib/disk.ts';

interface StoredIdentity {
  readonly nodeId: string;
  readonly clusterId?: string;
  /** Decimal. */
  readonly term: string;
  /** The keeper under which the term was begun. */
  readonly run?: string;
}

export class IdentityError extends Error {
  override readonly name = 'IdentityError';
  readonly code = 'IDENTITY_CORRUPT';
}

/** Who this node is: its ID, the cluster that it belongs to, and the highest term that it has seen. A small file in the data directory. */
export class NodeIdentity {
  readonly #disk: Disk;
  readonly #path: string;
  #stored: StoredIdentity;

  private constructor(disk: Disk, path: string, stored: StoredIdentity) {
    this.#disk = disk;
    this.#path = path;
    this.#stored = stored;
  }

  /** Reads the identity, or makes a new one. Throws `IdentityError` for a damaged file: guessing could join two clusters. */
  static open(disk: Disk, dataDirectory: string): NodeIdentity {
    const path = join(dataDirectory, 'identity');
    const text = readIfThere(path);
    const identity = new NodeIdentity(
      disk,
      path,
      text === undefined ? {nodeId: randomBytes(8).toString('hex'), term: '0'} : parse(text, path),
    );
    if (text === undefined) identity.#save({});
    return identity;
  }

  get nodeId(): string {
    return this.#stored.nodeId;
  }

  get clusterId(): string | undefined {
    return this.#stored.clusterId;
  }

  get term(): bigint {
    return BigInt(this.#stored.term);
  }

  adoptCluster(clusterId: string): void {
    this.#save({clusterId});
  }

  adoptTerm(term: bigint): void {
    if (term > this.term) this.#save({term: String(term)});
  }

  /** A primary begins a new term with each keeper; a daemon that takes over under the same keeper goes on in the same. */
  beginTerm(run: string): bigint {
    if (this.#stored.run !== run) {
      this.#save({
        run,
        term: String(this.term + 1n),
        clusterId: this.#stored.clusterId ?? randomBytes(16).toString('hex'),
      });
    }
    return this.term;
  }

  #save(change: Partial<StoredIdentity>): void {
    this.#stored = {...this.#stored, ...change};
    this.#disk.writeFileAtomic('identity', this.#path, Buffer.from(`${JSON.stringify(this.#stored)}\n`));
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}

function parse(text: string, path: string): StoredIdentity {
  try {
    const {nodeId, clusterId, term, run} = JSON.parse(text) as Partial<StoredIdentity>;
    if (typeof nodeId === 'string' && typeof term === 'string' && /^\d+$/.test(term)) {
      return {
        nodeId,
        term,
        ...(clusterId === undefined ? {} : {clusterId}),
        ...(run === undefined ? {} : {run}),
      };
    }
  } catch (cause) {
    throw new IdentityError(`Cannot read "${path}": it is no JSON`, {cause});
  }
  throw new IdentityError(`Cannot read "${path}": node ID or term is missing`);
}
