import {closeSync, openSync} from 'node:fs';
import {parentPort, workerData} from 'node:worker_threads';
import {Crc64Factory} from '../ltx/crc64.ts';
import {LockBytes} from '../sqlite/lock-bytes.ts';
import {compactRecords, fileSource} from './follow/compact-records.ts';

/** A part of a segment file. */
export interface RecordPlace {
  readonly path: string;
  readonly offset: number;
  readonly size: number;
}

export interface CompactWorkerData {
  readonly records: readonly RecordPlace[];
  readonly compress: boolean;
  readonly pendingByte: number | undefined;
  /** Temporary files are made under this path with a number behind it. */
  readonly temporaryPrefix: string;
}

/** Merges records into one file, beside everything else, and says where that is. */
const {records, compress, pendingByte, temporaryPrefix} = workerData as CompactWorkerData;
const lockBytes = new LockBytes(pendingByte);
const fds = new Map<string, number>();
for (const {path} of records) if (!fds.has(path)) fds.set(path, openSync(path, 'r'));
let temporaryCount = 0;
const result = compactRecords(
  records.map(({path, offset, size}) => fileSource(fds.get(path) ?? -1, offset, size)),
  {
    crc64: await Crc64Factory.open(),
    compress,
    lockPgno: pageSize => lockBytes.lockPgno(pageSize),
    temporaryPath: () => `${temporaryPrefix}.${temporaryCount++}`,
  },
);
for (const fd of fds.values()) closeSync(fd);
parentPort?.postMessage(result);
