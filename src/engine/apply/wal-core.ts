import type {LockBytes} from '../../sqlite/lock-bytes.ts';
import {
  encodeWalIndexHeader,
  WAL_INDEX_HEADER_SIZE,
  WalCkptInfo,
  type WalIndexHeader,
  WalIndexTable,
} from '../../sqlite/wal-index.ts';
import type {FollowerFiles} from './follower-files.ts';
import type {ShmLocks} from './shm-locks.ts';
import type {ShmMapping} from './shm-mapping.ts';

export interface WalCoreOptions {
  readonly files: FollowerFiles;
  /** Descriptor of the backing `-wal` file. */
  readonly walFd: number;
  readonly mapping: ShmMapping;
  readonly locks: ShmLocks;
  readonly lockBytes: LockBytes;
  /** A random unsigned 32-bit number, for salts. */
  readonly randomU32: () => number;
}

const HEADER_WORDS = WAL_INDEX_HEADER_SIZE / 4;

/**
 * What appending, checkpointing and recovery share: the write-ahead log and its index. Whoever uses it holds
 * the WRITE and CKPT locks, so nobody else changes the published header.
 */
export class WalCore {
  readonly files: FollowerFiles;
  readonly walFd: number;
  readonly locks: ShmLocks;
  readonly lockBytes: LockBytes;
  readonly table: WalIndexTable;
  readonly info: WalCkptInfo;
  readonly segment: (index: number) => Uint8Array;
  readonly randomU32: () => number;
  /** Checkpoint sequence number of the WAL's header. */
  nCkpt = 0;
  readonly #words: Int32Array;
  readonly #scratch = new Uint8Array(WAL_INDEX_HEADER_SIZE);
  readonly #scratchWords = new Int32Array(this.#scratch.buffer);
  #header: WalIndexHeader;

  constructor(options: WalCoreOptions) {
    this.files = options.files;
    this.walFd = options.walFd;
    this.locks = options.locks;
    this.lockBytes = options.lockBytes;
    this.randomU32 = options.randomU32;
    this.segment = index => options.mapping.segment(index);
    this.table = new WalIndexTable(this.segment);
    const first = this.segment(0);
    this.info = new WalCkptInfo(first);
    this.#words = new Int32Array(first.buffer, first.byteOffset, 2 * HEADER_WORDS);
    this.#header = {
      iChange: 0,
      bigEndCksum: false,
      pageSize: 0,
      mxFrame: 0,
      nPage: 0,
      frameChecksum1: 0,
      frameChecksum2: 0,
      salt1: 0,
      salt2: 0,
    };
  }

  /** The header as last published, or as recovery found it published. */
  get header(): WalIndexHeader {
    return this.#header;
  }

  /** Takes `header` for the published one, because it is. */
  adopt(header: WalIndexHeader): void {
    this.#header = header;
  }

  /**
   * Shows `header` to readers. They read the first copy, then the second, and believe them if they are equal;
   * so the second is written first. Atomic stores are releases: each becomes visible after everything stored
   * before it, the frames' index entries included, on every kind of processor.
   */
  publish(header: WalIndexHeader): void {
    encodeWalIndexHeader(this.#scratch, header);
    for (let i = 0; i < HEADER_WORDS; i++)
      Atomics.store(this.#words, HEADER_WORDS + i, this.#scratchWords[i]);
    for (let i = 0; i < HEADER_WORDS; i++) Atomics.store(this.#words, i, this.#scratchWords[i]);
    this.#header = header;
  }
}
