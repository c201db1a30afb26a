import type {PageHasher} from '../../ltx/checksum.ts';
import {xorChecksum} from '../../ltx/checksum.ts';
import type {Crc64Factory} from '../../ltx/crc64.ts';
import {type ByteSource, LtxDecoder} from '../../ltx/decoder.ts';
import {LtxError} from '../../ltx/error.ts';
import {decodeLtxHeader, LTX_HEADER_SIZE, type LtxHeader} from '../../ltx/header.ts';
import {CHECKSUM_FLAG, type Checksum, type Position} from '../../ltx/position.ts';
import type {PageTransaction} from '../apply/page-transaction.ts';
import type {DatabaseStore, StagedChecksums} from '../database-store.ts';
import type {PageBatch} from './page-batch.ts';

export interface CheckTools {
  readonly crc64: Crc64Factory;
  readonly pageHasher: PageHasher;
  readonly lockPgno: (pageSize: number) => number;
}

export interface CheckedRecord {
  readonly header: LtxHeader;
  readonly staged: StagedChecksums;
}

/**
 * Reads a whole record and proves that it belongs here: its own checksum, the position that it follows on, and that the
 * database's checksum after it is the one it promises. Nothing is changed; its pages go into
 * `batch`, where they count once the caller ends the record. Throws `LtxError`.
 */
export function checkRecord(
  store: DatabaseStore,
  source: ByteSource,
  tools: CheckTools,
  batch: PageBatch,
): CheckedRecord {
  const decoder = openDecoder(source, tools, tools.pageHasher);
  const {header} = decoder;
  const {checksums, position} = store;
  checkFollowsOn(header, position.txid, position.checksum);
  const isSamePageSize =
    header.minTxid > 1n && (checksums.pageCount === 0 || checksums.pageSize === header.pageSize);
  const countBefore = isSamePageSize ? checksums.pageCount : 0;
  const staged: StagedChecksums = {
    pageSize: header.pageSize,
    commit: header.commit,
    pgnos: [],
    checksums: [],
  };
  batch.beginRecord(header.pageSize);
  let rolling: Checksum = isSamePageSize ? checksums.checksum : CHECKSUM_FLAG;
  for (let found = decoder.nextPage(); found !== undefined; found = decoder.nextPage()) {
    const checksum = found.checksum ?? CHECKSUM_FLAG;
    const before = found.pgno <= countBefore ? checksums.get(found.pgno) : 0n;
    if (before !== 0n) rolling = xorChecksum(rolling, before);
    rolling = xorChecksum(rolling, checksum);
    staged.pgnos.push(found.pgno);
    staged.checksums.push(checksum);
    batch.add(found.pgno, found.page);
  }
  for (let pgno = header.commit + 1; pgno <= countBefore; pgno++) {
    const before = checksums.get(pgno);
    if (before !== 0n) rolling = xorChecksum(rolling, before);
  }
  const {postApplyChecksum} = decoder.close();
  if (rolling !== postApplyChecksum) {
    throw new LtxError(
      'LTX_CHECKSUM_MISMATCH',
      `Cannot apply transaction ${header.maxTxid}: the database would not be as the primary's`,
      {
        txid: header.maxTxid,
        computed: rolling,
        promised: postApplyChecksum,
      },
    );
  }
  return {header, staged};
}

function checkFollowsOn(header: LtxHeader, txid: bigint, checksum: bigint): void {
  if (header.minTxid === txid + 1n && (header.minTxid === 1n || header.preApplyChecksum === checksum)) return;
  throw new LtxError(
    'LTX_GAP',
    `Cannot apply transaction ${header.minTxid}: the database stands at ${txid}`,
    {
      minTxid: header.minTxid,
      txid,
      preApplyChecksum: header.preApplyChecksum,
      checksum,
    },
  );
}

/** A record's pages, to be read as often as needed. */
export function transactionOf(source: ByteSource, tools: CheckTools): PageTransaction {
  const header = readLtxHeader(source);
  return {
    pageSize: header.pageSize,
    commit: header.commit,
    pageCountHint: 0,
    *pages() {
      const decoder = openDecoder(source, tools);
      for (let found = decoder.nextPage(); found !== undefined; found = decoder.nextPage()) yield found;
    },
  };
}

export function readLtxHeader(source: ByteSource): LtxHeader {
  const bytes = new Uint8Array(LTX_HEADER_SIZE);
  return decodeLtxHeader(bytes.subarray(0, source.read(0, bytes)));
}

export function openDecoder(
  source: ByteSource,
  {crc64, lockPgno}: CheckTools,
  pageHasher?: PageHasher,
): LtxDecoder {
  const {pageSize} = readLtxHeader(source);
  return new LtxDecoder({
    source,
    crc64: crc64.create(),
    lockPgno: lockPgno(pageSize),
    ...(pageHasher === undefined ? {} : {pageHasher}),
  });
}

/** Position after the last record in `records`; `from` where there is none. */
export function positionAfter(
  records: readonly ByteSource[],
  tools: CheckTools,
  from: {readonly position: Position; readonly term: bigint},
): {readonly position: Position; readonly term: bigint; readonly commit: number | undefined} {
  const last = records.at(-1);
  if (last === undefined) return {...from, commit: undefined};
  const decoder = openDecoder(last, tools);
  const {header} = decoder;
  const trailer = decoder.close();
  return {
    position: {txid: header.maxTxid, checksum: trailer.postApplyChecksum as Checksum},
    term: header.nodeId,
    commit: header.commit,
  };
}
