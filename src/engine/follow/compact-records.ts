import {closeSync, openSync, readSync, rmSync, writeSync} from 'node:fs';
import {compactLtx} from '../../ltx/compactor.ts';
import type {Crc64Factory} from '../../ltx/crc64.ts';
import {type ByteSource, LtxDecoder} from '../../ltx/decoder.ts';

/** Inputs that are merged at a time: each holds a buffer. */
const INPUTS_MAX = 128;

export interface CompactOptions {
  readonly crc64: Crc64Factory;
  readonly compress: boolean;
  readonly lockPgno: (pageSize: number) => number;
  /** Path of a new temporary file. */
  readonly temporaryPath: () => string;
}

/** A file, or a part of one, as a source. The caller closes `fd`. */
export function fileSource(fd: number, offset: number, size: number): ByteSource {
  return {
    size,
    read(position, target) {
      const wanted = Math.min(target.length, size - position);
      let count = 0;
      while (count < wanted) {
        const n = readSync(fd, target, count, wanted - count, offset + position + count);
        if (n === 0) break;
        count += n;
      }
      return Math.max(count, 0);
    },
  };
}

/** Merges consecutive records into one: the last version of each page. Writes it to a temporary file and returns that. */
export function compactRecords(
  records: readonly ByteSource[],
  options: CompactOptions,
): {readonly path: string; readonly size: number} {
  const temporaries: number[] = [];
  try {
    let level = [...records];
    while (level.length > INPUTS_MAX) {
      const next: ByteSource[] = [];
      for (let i = 0; i < level.length; i += INPUTS_MAX) {
        const {path, size} = mergeOnce(level.slice(i, i + INPUTS_MAX), options);
        const fd = openSync(path, 'r');
        temporaries.push(fd);
        rmSync(path); // Lives on behind `fd`, and only there.
        next.push(fileSource(fd, 0, size));
      }
      level = next;
    }
    return mergeOnce(level, options);
  } finally {
    for (const fd of temporaries) closeSync(fd);
  }
}

function mergeOnce(
  sources: readonly ByteSource[],
  {crc64, compress, lockPgno, temporaryPath}: CompactOptions,
): {path: string; size: number} {
  const inputs = sources.map(source => {
    const {header} = new LtxDecoder({source, crc64: crc64.create()});
    return new LtxDecoder({source, crc64: crc64.create(), lockPgno: lockPgno(header.pageSize)});
  });
  const path = temporaryPath();
  const fd = openSync(path, 'w');
  try {
    let position = 0;
    const write = (chunk: Uint8Array) => {
      for (let count = 0; count < chunk.length; )
        count += writeSync(fd, chunk, count, chunk.length - count, position + count);
      position += chunk.length;
    };
    compactLtx({
      inputs,
      crc64: crc64.create(),
      compress,
      write,
      lockPgno: lockPgno(inputs[0].header.pageSize),
    });
    return {path, size: position};
  } catch (error) {
    rmSync(path, {force: true});
    throw error;
  } finally {
    closeSync(fd);
  }
}
