import {cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import Database from 'better-sqlite3';
import {expect} from 'vitest';
import {Disk} from '../../src/lib/disk.ts';
import type {LogEntry} from '../../src/log/log-entry.ts';
import {TransactionLog} from '../../src/log/transaction-log.ts';
import {PageHasher, xorChecksum} from '../../src/ltx/checksum.ts';
import {Crc64Factory} from '../../src/ltx/crc64.ts';
import {LtxDecoder} from '../../src/ltx/decoder.ts';
import {CHECKSUM_FLAG, type Checksum, formatPosition, type Position} from '../../src/ltx/position.ts';
import {LockBytes} from '../../src/sqlite/lock-bytes.ts';
import {until} from './node.ts';

/** The node whose log is asked: a running one, or one that was stopped. */
export interface OracleNode {
  readonly data: string;
  readonly mount: string;
}

/** The database that a log stands for. */
export interface LogImage {
  readonly id: string;
  readonly position: Position;
  readonly pageSize: number;
  readonly pageCount: number;
  /** The lock page is zeros. */
  readonly bytes: Buffer;
  readonly entries: readonly LogEntry[];
}

const COUNT_MAX = 1_000_000;

/** ID by which the catalog knows the database `name`. */
export function databaseId(data: string, name: string): string | undefined {
  let found: string | undefined;
  const path = join(data, 'catalog');
  if (!existsSync(path)) return undefined;
  for (const line of readFileSync(path, 'utf8').split('\n').slice(0, -1)) {
    const {id, name: named} = JSON.parse(line) as {id: string; name?: string};
    if (named === name) found = id;
    else if (id === found) found = undefined;
  }
  return found;
}

/**
 * Replays every record of the log from the first on, in a copy of its folder, so that a running daemon is not disturbed.
 * Undefined where the catalog has no such database.
 */
export async function readLogImage(
  data: string,
  name: string,
  pendingByte?: number,
): Promise<LogImage | undefined> {
  const id = databaseId(data, name);
  if (id === undefined) return undefined;
  const copy = mkdtempSync(join(tmpdir(), 'ferrite-oracle-'));
  try {
    cpSync(join(data, 'databases', id, 'log'), join(copy, 'log'), {recursive: true});
    return replay(id, join(copy, 'log'), await Crc64Factory.open(), new LockBytes(pendingByte));
  } finally {
    rmSync(copy, {recursive: true});
  }
}

function replay(id: string, directory: string, crc64: Crc64Factory, lockBytes: LockBytes): LogImage {
  const lockPgno = (pageSize: number) => lockBytes.lockPgno(pageSize);
  const log = TransactionLog.open({disk: new Disk(), directory, crc64, lockPgno, verifyTail: true});
  try {
    expect(log.base.position.txid, 'the log was never pruned').toBe(0n);
    const entries = [...allEntries(log)];
    let image = Buffer.alloc(0);
    const sums = new Map<number, Checksum>();
    const hasher = new PageHasher(crc64);
    let pageSize = 0;
    let expected = 1n;
    for (const entry of entries) {
      expect(entry.minTxid, 'TXIDs grow by one').toBe(expected);
      expect(entry.maxTxid).toBe(expected++);
      if (entry.pageSize !== pageSize) sums.clear();
      pageSize = entry.pageSize;
      image = resized(image, entry.commit * pageSize);
      for (const pgno of sums.keys()) if (pgno > entry.commit) sums.delete(pgno);
      const decoder = new LtxDecoder({
        source: log.read(entry),
        crc64: crc64.create(),
        lockPgno: lockPgno(pageSize),
      });
      for (let next = decoder.nextPage(); next !== undefined; next = decoder.nextPage()) {
        image.set(next.page, (next.pgno - 1) * pageSize);
        sums.set(next.pgno, hasher.checksum(next.pgno, next.page));
      }
      decoder.close();
      const rolling = [...sums.values()].reduce((sum, page) => xorChecksum(sum, page), CHECKSUM_FLAG);
      expect(entry.postApplyChecksum, `checksum after ${entry.maxTxid}`).toBe(rolling);
    }
    const pageCount = entries.at(-1)?.commit ?? 0;
    return {id, position: log.position, pageSize, pageCount, bytes: image, entries};
  } finally {
    log.close();
  }
}

function* allEntries(log: TransactionLog): Generator<LogEntry> {
  let from = 1n;
  for (let left = COUNT_MAX; left > 0; left--) {
    const found = log.entries(from as Position['txid'], 256);
    if (found.length === 0) return;
    yield* found;
    from = (found.at(-1)?.maxTxid ?? 0n) + 1n;
  }
}

function resized(image: Buffer<ArrayBuffer>, size: number): Buffer<ArrayBuffer> {
  if (size <= image.length) return image.subarray(0, size);
  const larger = Buffer.alloc(size);
  image.copy(larger);
  return larger;
}

/** The bytes that a reader of the database sees: the file, and over it what is committed in its -wal. */
export function effectiveBytes(data: string, name: string): Buffer {
  const path = join(data, 'files', name);
  if (!existsSync(path)) return Buffer.alloc(0);
  const copy = mkdtempSync(join(tmpdir(), 'ferrite-oracle-'));
  try {
    const target = join(copy, 'copy.db');
    cpSync(path, target);
    const wal = `${path}-wal`;
    if (existsSync(wal) && statSync(wal).size > 0) {
      cpSync(wal, `${target}-wal`);
      const database = new Database(target);
      database.pragma('wal_checkpoint(TRUNCATE)');
      database.close();
    }
    return readFileSync(target);
  } finally {
    rmSync(copy, {recursive: true});
  }
}

/** Text of the virtual file `<name>-pos`. */
export async function positionText(node: OracleNode, name: string): Promise<string> {
  return (await readFile(join(node.mount, `${name}-pos`), 'utf8')).trim();
}

/** Number of the database's last transaction, as its node tells; 0 where it knows none. */
export async function txidOf(node: OracleNode, name: string): Promise<number> {
  try {
    return Number.parseInt((await positionText(node, name)).slice(0, 16), 16);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
}

/**
 * What the log stands for is what a reader sees, byte for byte but for the lock page; its position is the one that the
 * node tells. Waits a while for capturing that goes on in the background.
 */
export async function expectLogEqualsDatabase(
  node: OracleNode,
  name: string,
  options: {readonly isStopped?: boolean; readonly pendingByte?: number} = {},
): Promise<LogImage> {
  let difference = 'not looked at';
  let image: LogImage | undefined;
  await until(
    async () => {
      image = await readLogImage(node.data, name, options.pendingByte);
      difference =
        image === undefined
          ? 'no log'
          : differenceOf(image, effectiveBytes(node.data, name), options.pendingByte);
      return difference === '';
    },
    5000,
    () => `log of ${name} is not its database: ${difference}`,
  );
  if (image === undefined) throw new Error(`no log of ${name}`);
  if (options.isStopped !== true) expect(await positionText(node, name)).toBe(formatPosition(image.position));
  return image;
}

function differenceOf(
  {bytes, pageSize, pageCount, position}: LogImage,
  file: Buffer,
  pendingByte?: number,
): string {
  const at = `at ${formatPosition(position)}`;
  if (pageSize === 0) return file.length === 0 ? '' : `empty log, ${file.length} bytes`;
  const lockPgno = new LockBytes(pendingByte).lockPgno(pageSize);
  const filePageCount = Math.ceil(file.length / pageSize);
  if (filePageCount > pageCount) return `${filePageCount} pages, log has ${pageCount} ${at}`;
  const page = Buffer.alloc(pageSize);
  for (let pgno = 1; pgno <= pageCount; pgno++) {
    if (pgno === lockPgno) continue;
    page.fill(0);
    file.copy(page, 0, (pgno - 1) * pageSize, pgno * pageSize);
    if (!page.equals(bytes.subarray((pgno - 1) * pageSize, pgno * pageSize)))
      return `page ${pgno} of ${pageCount} ${at}`;
  }
  return '';
}
