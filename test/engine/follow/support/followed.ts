import {closeSync, mkdirSync, mkdtempSync, openSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {PageTransaction} from '../../../../src/engine/apply/page-transaction.ts';
import {type FollowContext, FollowedDatabase} from '../../../../src/engine/follow/followed-database.ts';
import {KernelNotifier} from '../../../../src/fuse/notify.ts';
import {Disk} from '../../../../src/lib/disk.ts';
import {PageHasher, xorChecksum} from '../../../../src/ltx/checksum.ts';
import {Crc64Factory} from '../../../../src/ltx/crc64.ts';
import {type ByteSource, bytesSource} from '../../../../src/ltx/decoder.ts';
import {LtxEncoder} from '../../../../src/ltx/encoder.ts';
import {CHECKSUM_FLAG, type Checksum, toTxid} from '../../../../src/ltx/position.ts';
import {LockBytes} from '../../../../src/sqlite/lock-bytes.ts';
import {Primary} from '../../apply/support/primary.ts';

const crc64 = await Crc64Factory.open();
const pageHasher = new PageHasher(crc64);
const lockBytes = new LockBytes();
const lockPgno = (pageSize: number) => lockBytes.lockPgno(pageSize);

/** A database that real SQLite writes, and its transactions as LTX records. */
export class RecordedPrimary {
  readonly #primary: Primary;
  #txid = 0n;
  #checksum: Checksum = CHECKSUM_FLAG;

  constructor(path: string) {
    this.#primary = new Primary(path, 41);
  }

  [Symbol.dispose](): void {
    this.#primary.close();
  }

  /** What the database is after the last record. */
  get bytes(): Uint8Array {
    return this.#primary.bytes;
  }

  first(): ByteSource {
    return this.#record(this.#primary.capture());
  }

  step(): ByteSource {
    return this.#record(this.#primary.step());
  }

  exec(sql: string): ByteSource {
    this.#primary.database.exec(sql);
    return this.#record(this.#primary.capture());
  }

  #record({pageSize, commit, pages}: PageTransaction): ByteSource {
    const txid = toTxid(++this.#txid);
    const preApplyChecksum = txid === 1n ? 0n : this.#checksum;
    const chunks: Buffer[] = [];
    const encoder = new LtxEncoder({
      header: {
        pageSize,
        commit,
        minTxid: txid,
        maxTxid: txid,
        timestampMs: 1000,
        preApplyChecksum,
        walOffset: 0,
        walSize: 0,
        walSalt1: 0,
        walSalt2: 0,
        nodeId: 1n,
        noChecksum: false,
      },
      crc64: crc64.create(),
      compress: false,
      write: chunk => void chunks.push(Buffer.from(chunk)),
    });
    for (const {pgno, page} of pages()) encoder.encodePage(pgno, page);
    this.#checksum = databaseChecksum(this.#primary.bytes, pageSize);
    encoder.close(this.#checksum);
    return bytesSource(new Uint8Array(Buffer.concat(chunks)));
  }
}

function databaseChecksum(bytes: Uint8Array, pageSize: number): Checksum {
  let sum: Checksum = CHECKSUM_FLAG;
  for (let at = 0; at < bytes.length; at += pageSize) {
    const page = bytes.subarray(at, at + pageSize);
    sum = xorChecksum(sum, pageHasher.checksum(at / pageSize + 1, page));
  }
  return sum;
}

/** Followed databases in a data directory without a mount: notifications go nowhere. */
export class FollowWorld {
  readonly directory = mkdtempSync(join(tmpdir(), 'ferrite-follow-'));
  readonly #nowhere = openSync('/dev/null', 'w');
  /** Called with the name of every disk call; what it throws replaces the call. */
  onCall: (name: string) => void = () => {};
  #spooled = 0;

  path(name: string): string {
    return join(this.directory, 'files', name);
  }

  database(id: string, name: string): FollowedDatabase {
    for (const folder of ['files', 'databases', 'incoming'])
      mkdirSync(join(this.directory, folder), {recursive: true});
    const files = join(this.directory, 'files');
    const context: FollowContext = {
      disk: new Disk({onCall: called => this.onCall(called)}),
      crc64,
      lockBytes,
      lockPgno,
      pageHasher,
      directory: join(this.directory, 'databases'),
      compress: false,
      filesDirectory: files,
      mountDirectory: files,
      notifier: new KernelNotifier(this.#nowhere),
      sync: 'off',
      buffer: new Uint8Array(1024 * 1024),
      compact: {
        crc64,
        compress: false,
        lockPgno,
        temporaryPath: () => join(this.directory, 'incoming', String(++this.#spooled)),
      },
      keepAside: (_database, error) => {
        throw error;
      },
      randomU32: () => 7,
    };
    return new FollowedDatabase(context, id, name, {
      wasInUse: false,
      isTrusted: true,
      trusted: () => undefined,
      damaged: error => {
        throw error;
      },
    });
  }

  [Symbol.dispose](): void {
    closeSync(this.#nowhere);
    rmSync(this.directory, {recursive: true, force: true});
  }
}
