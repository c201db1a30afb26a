import {closeSync, openSync, rmSync, writeSync} from 'node:fs';
import type {ByteSource} from '../../ltx/decoder.ts';
import {LtxError} from '../../ltx/error.ts';
import type {TransferInfo} from '../apply-messages.ts';
import {fileSource} from './compact-records.ts';
import {type CheckTools, openDecoder} from './record-check.ts';

/** A transfer on its way in: pages are put into an image of the database, records behind each other into another file. */
export class IncomingTransfer {
  readonly id: string;
  readonly info: TransferInfo;
  readonly #imagePath: string;
  readonly #recordsPath: string;
  readonly #imageFd: number;
  readonly #recordsFd: number;
  #recordsSize = 0;

  constructor(id: string, info: TransferInfo, path: string) {
    this.id = id;
    this.info = info;
    this.#imagePath = `${path}.image`;
    this.#recordsPath = `${path}.records`;
    this.#imageFd = openSync(this.#imagePath, 'w+', 0o600);
    this.#recordsFd = openSync(this.#recordsPath, 'w+', 0o600);
  }

  writePages(pgno: number, bytes: Uint8Array): void {
    const {info} = this;
    if (
      info.kind !== 'snapshot' ||
      pgno < 1 ||
      bytes.length % info.pageSize !== 0 ||
      pgno - 1 + bytes.length / info.pageSize > info.pageCount
    ) {
      throw new LtxError('LTX_BAD_PAGE', `Cannot take pages from ${pgno}: they are not of this snapshot`, {
        pgno,
        size: bytes.length,
      });
    }
    writeAt(this.#imageFd, bytes, (pgno - 1) * info.pageSize);
  }

  writeRecord(bytes: Uint8Array): void {
    writeAt(this.#recordsFd, bytes, this.#recordsSize);
    this.#recordsSize += bytes.length;
  }

  /** The records that came, back to back. */
  get records(): ByteSource {
    return fileSource(this.#recordsFd, 0, this.#recordsSize);
  }

  /** Brings the image up to the last record. Returns its size in pages then. */
  mergeRecords(records: readonly ByteSource[], tools: CheckTools): number {
    const {info} = this;
    if (info.kind !== 'snapshot') throw new Error('Cannot merge records: there is no image');
    let {pageCount} = info;
    for (const record of records) {
      const decoder = openDecoder(record, tools);
      if (decoder.header.pageSize !== info.pageSize) {
        throw new LtxError(
          'LTX_PAGE_SIZE_MISMATCH',
          'Cannot apply snapshot: the page size changed while it was sent',
          {},
        );
      }
      for (let found = decoder.nextPage(); found !== undefined; found = decoder.nextPage()) {
        writeAt(this.#imageFd, found.page, (found.pgno - 1) * info.pageSize);
      }
      decoder.close();
      pageCount = decoder.header.commit;
    }
    return pageCount;
  }

  image(pageCount: number): ByteSource {
    return fileSource(this.#imageFd, 0, this.info.kind === 'snapshot' ? pageCount * this.info.pageSize : 0);
  }

  close(): void {
    closeSync(this.#imageFd);
    closeSync(this.#recordsFd);
    rmSync(this.#imagePath, {force: true});
    rmSync(this.#recordsPath, {force: true});
  }
}

function writeAt(fd: number, bytes: Uint8Array, position: number): void {
  for (let count = 0; count < bytes.length; )
    count += writeSync(fd, bytes, count, bytes.length - count, position + count);
}
