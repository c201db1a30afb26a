import {readU32be} from '../lib/bytes.ts';
import {SqliteFormatError} from './error.ts';
import {LockBytes} from './lock-bytes.ts';
import {isPageSize} from './page-size.ts';

/** Size of what a journal header says, in bytes; it takes up a whole sector. */
export const JOURNAL_HEADER_SIZE = 28;
/** Number of records that means "as many as the file holds". */
export const JOURNAL_RECORDS_UNKNOWN = 0xffff_ffff;
/** Largest sector size that SQLite accepts in a journal, in bytes. */
export const SECTOR_SIZE_MAX = 65_536;
/** Longest super-journal name that SQLite looks at on Unix, in bytes. */
export const SUPER_JOURNAL_NAME_SIZE_MAX = 512;

const SECTOR_SIZE_MIN = 32;
// What SQLite takes for the sector size until it has read the first header.
const SECTOR_SIZE_DEFAULT = 512;
const MAGIC = Uint8Array.of(0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7);

/**
 * The header of a journal's segment (3 The Rollback Journal). Only the first one's page and sector size
 * count.
 */
export interface JournalHeader {
  /** Records that follow; 0 while the segment isn't synced; `JOURNAL_RECORDS_UNKNOWN`. */
  readonly nRec: number;
  /** Where the records' checksums begin. */
  readonly nonce: number;
  /** Database size before the transaction, in pages. */
  readonly initialPageCount: number;
  /** In bytes; headers begin at its multiples. */
  readonly sectorSize: number;
  /** In bytes; 0 if a SQLite before 3.5.8 wrote it. */
  readonly pageSize: number;
}

// Journal header, big-endian:
//   0 magic 8 bytes | 8 nRec u32 | 12 nonce u32 | 16 initial page count u32
//   20 sector size u32 | 24 page size u32

/**
 * Reads the first header of a journal from the start of `bytes`. Throws `JOURNAL_TRUNCATED`,
 * `JOURNAL_BAD_MAGIC`, `JOURNAL_BAD_SECTOR_SIZE` and `JOURNAL_BAD_PAGE_SIZE`: to SQLite such a journal has
 * nothing to roll back.
 */
export function decodeJournalHeader(bytes: Uint8Array): JournalHeader {
  if (bytes.length < JOURNAL_HEADER_SIZE) {
    throw new SqliteFormatError('JOURNAL_TRUNCATED', `Cannot read journal header: ${bytes.length} bytes`);
  }
  if (!hasJournalMagic(bytes)) {
    throw new SqliteFormatError('JOURNAL_BAD_MAGIC', 'Cannot read journal header: it has another magic');
  }
  const header = readHeader(bytes);
  const {sectorSize, pageSize} = header;
  if (!isSectorSize(sectorSize)) {
    const message = `Cannot read journal header: sector size ${sectorSize}`;
    throw new SqliteFormatError('JOURNAL_BAD_SECTOR_SIZE', message, {sectorSize});
  }
  if (pageSize !== 0 && !isPageSize(pageSize)) {
    const message = `Cannot read journal header: page size ${pageSize}`;
    throw new SqliteFormatError('JOURNAL_BAD_PAGE_SIZE', message, {pageSize});
  }
  return header;
}

function readHeader(bytes: Uint8Array): JournalHeader {
  return {
    nRec: readU32be(bytes, 8),
    nonce: readU32be(bytes, 12),
    initialPageCount: readU32be(bytes, 16),
    sectorSize: readU32be(bytes, 20),
    pageSize: readU32be(bytes, 24),
  };
}

/** Says whether `bytes` begin with the magic of a journal header. False if there are fewer than 8. */
export function hasJournalMagic(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, i) => bytes[i] === byte);
}

/**
 * Says whether the first 28 bytes are all zero, which is how journal_mode=PERSIST commits. The header of a
 * new journal has zeros too, but only 12, until it is synced: the sizes after them are there from the
 * beginning.
 */
export function isZeroedJournalHeader(bytes: Uint8Array): boolean {
  if (bytes.length < JOURNAL_HEADER_SIZE) return false;
  return bytes.subarray(0, JOURNAL_HEADER_SIZE).every(byte => byte === 0);
}

/**
 * Says whether SQLite goes to roll the journal back when it finds it beside a database that isn't empty and
 * that nobody has reserved: the first byte is there and not 0. Whether anything is rolled back then is for
 * `planRollback` to say.
 */
export function looksHot(bytes: Uint8Array): boolean {
  return bytes.length > 0 && bytes[0] !== 0;
}

/**
 * Checksum of a page in a journal's record: the nonce and every 200th byte, counted from the end, the first
 * ones left out (3 The Rollback Journal). It finds records that are not whole, not damage in general.
 */
export function journalChecksum(nonce: number, page: Uint8Array): number {
  let sum = nonce;
  for (let i = page.length - 200; i > 0; i -= 200) sum = (sum + page[i]) >>> 0;
  return sum;
}

/**
 * Reads up to `length` bytes at `position` of the journal; fewer only where the file ends. Valid until the
 * next call.
 */
export type ReadJournal = (position: number, length: number) => Uint8Array;

// Super-journal name, at the very end of the file, big-endian:
//   0 lock page's number u32 | 4 name, n bytes | 4+n n u32 | 8+n sum of the name's signed bytes u32
//   12+n magic

/**
 * The path of the super-journal that decides over this journal (a transaction over several databases), or
 * `undefined` if there is none. If the file by that name is gone, the transaction is committed and SQLite
 * rolls nothing back. A name that is damaged or longer than 512 bytes counts as none. Throws
 * `JOURNAL_BAD_NAME` for one that isn't UTF-8: a path, but not one that can be said in a string.
 */
export function readSuperJournalName(read: ReadJournal, fileSize: number): string | undefined {
  if (fileSize < 16) return undefined;
  const tail = read(fileSize - 16, 16);
  if (tail.length < 16 || !hasJournalMagic(tail.subarray(8))) return undefined;
  const size = readU32be(tail, 0);
  let sum = readU32be(tail, 4);
  if (size === 0 || size > SUPER_JOURNAL_NAME_SIZE_MAX || size > fileSize - 16) return undefined;
  const name = read(fileSize - 16 - size, size);
  if (name.length < size) return undefined;
  for (const byte of name) sum = (sum - ((byte << 24) >> 24)) >>> 0;
  if (sum !== 0) return undefined;
  // SQLite takes the name for a C string.
  const end = name.indexOf(0);
  const text = decodeName(end === -1 ? name : name.subarray(0, end));
  return text === '' ? undefined : text;
}

function decodeName(name: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(name);
  } catch (error) {
    // To guess would be to ask for the wrong file, not find it, and leave half a transaction in the database.
    const message = 'Cannot read super-journal name: it is not UTF-8';
    throw new SqliteFormatError('JOURNAL_BAD_NAME', message, {hex: Buffer.from(name).toString('hex')}, error);
  }
}

/**
 * One step of a rollback. First comes `truncate`: make the file `pageCount` pages long, as `rolledBackSize`
 * says. Then the pages, to be written in this order: should one come twice, the later one is right, as it is
 * in SQLite. A page is a view that is valid until the next step.
 */
export type RollbackStep =
  | {readonly kind: 'truncate'; readonly pageCount: number; readonly pageSize: number}
  | {readonly kind: 'page'; readonly pgno: number; readonly page: Uint8Array};

export interface RollbackOptions {
  readonly read: ReadJournal;
  /** Size of the journal, in bytes. */
  readonly fileSize: number;
  /** Page size by the database's header, in bytes, for journals that don't say. */
  readonly databasePageSize?: number;
  readonly lockBytes?: LockBytes;
}

/**
 * Yields what SQLite does to a database file when it finds this journal hot (3 The Rollback Journal). No
 * steps: the journal holds nothing to roll back. Reads a page at a time, so the journal may be of any size.
 * The caller has asked `looksHot`, and `readSuperJournalName` whether the transaction isn't committed.
 *
 * A record or header that isn't whole or doesn't add up is where the journal ends: its writer had not synced
 * that part yet, and so had not touched those pages. Throws `JOURNAL_BAD_PAGE_SIZE` if neither journal nor
 * caller say the page size.
 */
export function* planRollback(options: RollbackOptions): Generator<RollbackStep, void, undefined> {
  const {read, fileSize} = options;
  const first = readFirstHeader(options);
  if (first === undefined) return;
  const {pageSize, sectorSize, initialPageCount} = first;
  const lockPgno = (options.lockBytes ?? new LockBytes()).lockPgno(pageSize);
  yield {kind: 'truncate', pageCount: initialPageCount, pageSize};

  let header: JournalHeader | undefined = first;
  let position = sectorSize;
  while (header !== undefined) {
    const nRec = header.nRec === JOURNAL_RECORDS_UNKNOWN ? Number.POSITIVE_INFINITY : header.nRec;
    for (let i = 0; i < nRec; i++) {
      const record = readRecord(read, position, pageSize);
      // Nothing valid can follow, not even a header: SQLite stops for good.
      if (record === undefined || record.pgno === 0 || record.pgno === lockPgno) return;
      position += pageSize + 8;
      // Pages that the transaction has added are cut off already; SQLite doesn't look at their checksums.
      if (record.pgno > initialPageCount) continue;
      if (record.checksum !== journalChecksum(header.nonce, record.page)) return;
      yield {kind: 'page', pgno: record.pgno, page: record.page};
    }
    const headerPosition = Math.ceil(position / sectorSize) * sectorSize;
    header = readNextHeader(read, headerPosition, sectorSize, fileSize);
    position = headerPosition + sectorSize;
  }
}

/**
 * Size that the database file of `fileSize` bytes must be given for a `truncate` step, in bytes. SQLite
 * leaves a file alone that is shorter by less than a page, and makes a shorter one longer with zeros.
 */
export function rolledBackSize(fileSize: number, pageCount: number, pageSize: number): number {
  const size = pageCount * pageSize;
  return fileSize < size && fileSize + pageSize > size ? fileSize : size;
}

function readFirstHeader(options: RollbackOptions): JournalHeader | undefined {
  if (options.fileSize < SECTOR_SIZE_DEFAULT) return undefined;
  const bytes = options.read(0, JOURNAL_HEADER_SIZE);
  if (bytes.length < JOURNAL_HEADER_SIZE || !hasJournalMagic(bytes)) return undefined;
  const header = readHeader(bytes);
  if (header.pageSize === 0 && options.databasePageSize === undefined) {
    throw new SqliteFormatError(
      'JOURNAL_BAD_PAGE_SIZE',
      'Cannot plan rollback: neither journal nor database say the page size',
    );
  }
  const pageSize = header.pageSize === 0 ? (options.databasePageSize ?? 0) : header.pageSize;
  if (!isPageSize(pageSize) || !isSectorSize(header.sectorSize)) return undefined;
  return {...header, pageSize};
}

function readNextHeader(
  read: ReadJournal,
  position: number,
  sectorSize: number,
  fileSize: number,
): JournalHeader | undefined {
  if (position + sectorSize > fileSize) return undefined;
  const bytes = read(position, JOURNAL_HEADER_SIZE);
  if (bytes.length < JOURNAL_HEADER_SIZE || !hasJournalMagic(bytes)) return undefined;
  return readHeader(bytes);
}

interface JournalRecord {
  readonly pgno: number;
  readonly page: Uint8Array;
  readonly checksum: number;
}

// Record, big-endian:  0 pgno u32 | 4 page | 4+pageSize checksum u32
function readRecord(read: ReadJournal, position: number, pageSize: number): JournalRecord | undefined {
  const bytes = read(position, pageSize + 8);
  if (bytes.length < pageSize + 8) return undefined;
  return {
    pgno: readU32be(bytes, 0),
    page: bytes.subarray(4, 4 + pageSize),
    checksum: readU32be(bytes, 4 + pageSize),
  };
}

function isSectorSize(size: number): boolean {
  return size >= SECTOR_SIZE_MIN && size <= SECTOR_SIZE_MAX && (size & (size - 1)) === 0;
}
