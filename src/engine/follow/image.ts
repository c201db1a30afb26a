import {type PageHasher, xorChecksum} from '../../ltx/checksum.ts';
import type {ByteSource} from '../../ltx/decoder.ts';
import {LtxError} from '../../ltx/error.ts';
import {CHECKSUM_FLAG, type Checksum} from '../../ltx/position.ts';
import type {PageTransaction} from '../apply/page-transaction.ts';
import type {StagedChecksums} from '../database-store.ts';

export interface HashTools {
  readonly pageHasher: PageHasher;
  readonly lockPgno: (pageSize: number) => number;
}

/** Checksums of the pages that `image` holds one after the other, and their sum. Throws `LTX_TRUNCATED` where pages are missing. */
export function hashImage(
  image: ByteSource,
  pageSize: number,
  pageCount: number,
  {pageHasher, lockPgno}: HashTools,
): {readonly staged: StagedChecksums; readonly rolling: Checksum} {
  const staged: StagedChecksums = {pageSize, commit: pageCount, pgnos: [], checksums: []};
  const withoutPgno = lockPgno(pageSize);
  const page = new Uint8Array(pageSize);
  let rolling: Checksum = CHECKSUM_FLAG;
  for (let pgno = 1; pgno <= pageCount; pgno++) {
    if (pgno === withoutPgno) continue;
    if (image.read((pgno - 1) * pageSize, page) !== pageSize)
      throw new LtxError('LTX_TRUNCATED', `Cannot read page ${pgno}: the image is cut short`, {pgno});
    const checksum = pageHasher.checksum(pgno, page);
    rolling = xorChecksum(rolling, checksum);
    staged.pgnos.push(pgno);
    staged.checksums.push(checksum);
  }
  return {staged, rolling};
}

/** Pages of an image as one transaction. */
export function imageTransaction(
  image: ByteSource,
  pgnos: readonly number[],
  {pageSize, commit}: StagedChecksums,
): PageTransaction {
  return {
    pageSize,
    commit,
    pageCountHint: pgnos.length,
    *pages() {
      const page = new Uint8Array(pageSize);
      for (const pgno of pgnos) {
        image.read((pgno - 1) * pageSize, page);
        yield {pgno, page};
      }
    },
  };
}
