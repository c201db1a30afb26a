import {LtxError} from './error.ts';
import type {LtxHeader} from './header.ts';
import {CHECKSUM_FLAG, type Checksum, isChecksum} from './position.ts';

// Trailer, big-endian:  0 postApplyChecksum u64 | 8 fileChecksum u64
export const LTX_TRAILER_SIZE = 16;

export interface LtxTrailer {
  /** Rolling checksum after the last transaction; 0 in a record without checksums. */
  readonly postApplyChecksum: bigint;
  /** Checksum of the record itself, with its pages decompressed. */
  readonly fileChecksum: Checksum;
}

/** Reads the trailer at `at`. Throws `LTX_BAD_TRAILER` unless its values are allowed under `header`. */
export function decodeLtxTrailer(bytes: Uint8Array, at: number, header: LtxHeader): LtxTrailer {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, LTX_TRAILER_SIZE);
  const postApplyChecksum = view.getBigUint64(0);
  const fileChecksum = view.getBigUint64(8);
  validatePostApply(header, postApplyChecksum);
  if (!isChecksum(fileChecksum)) fail('the file checksum lacks its flag', {fileChecksum});
  return {postApplyChecksum, fileChecksum};
}

/** Throws `LTX_BAD_TRAILER` unless a record with this header may end with this post-apply checksum. */
export function validatePostApply(header: LtxHeader, postApplyChecksum: bigint): void {
  if (header.noChecksum) {
    if (header.commit === 0) fail('an empty database needs checksums', {});
    if (postApplyChecksum !== 0n) fail('a post-apply checksum is not allowed', {postApplyChecksum});
    return;
  }
  if (!isChecksum(postApplyChecksum)) fail('the post-apply checksum lacks its flag', {postApplyChecksum});
  if (header.commit === 0 && postApplyChecksum !== CHECKSUM_FLAG) {
    fail('the post-apply checksum is not that of an empty database', {postApplyChecksum});
  }
}

function fail(state: string, detail: Readonly<Record<string, unknown>>): never {
  throw new LtxError('LTX_BAD_TRAILER', `Cannot accept LTX trailer: ${state}`, detail);
}
