import {readU32be} from '../lib/bytes.ts';
import {SqliteFormatError} from './error.ts';
import {isPageSize, unpackPageSize} from './page-size.ts';

/** Size of the header at the start of page 1, in bytes. */
export const DATABASE_HEADER_SIZE = 100;

const MAGIC = Uint8Array.from('SQLite format 3\0', character => character.charCodeAt(0));

/** The smallest part of a page that SQLite can live with, in bytes (1.3.4 Reserved bytes per page). */
const USABLE_SIZE_MIN = 480;

/** The database header (1.3 The Database Header), with SQLite's meaning of each field. */
export interface DatabaseHeader {
  /** In bytes. */
  readonly pageSize: number;
  /** 1 for rollback journals, 2 for WAL; SQLite does not write to a database with more. */
  readonly writeVersion: number;
  /** As `writeVersion`; SQLite does not open a database with more. */
  readonly readVersion: number;
  /** Bytes at the end of each page that are not SQLite's. */
  readonly reservedBytes: number;
  /** Grows with each transaction in rollback mode; in WAL mode it may stay. */
  readonly changeCounter: number;
  /** Database size in pages, if it may be trusted: see `effectivePageCount`. */
  readonly pageCount: number;
  readonly freelistTrunkPgno: number;
  readonly freelistCount: number;
  /** Grows with each change of the schema. */
  readonly schemaCookie: number;
  readonly schemaFormat: number;
  readonly defaultCacheSize: number;
  /** Non-zero with auto_vacuum. */
  readonly largestRootPgno: number;
  /** 1 UTF-8, 2 UTF-16le, 3 UTF-16be. */
  readonly textEncoding: number;
  readonly userVersion: number;
  readonly isIncrementalVacuum: boolean;
  readonly applicationId: number;
  /** The `changeCounter` at which `pageCount` was written. */
  readonly versionValidFor: number;
  /** SQLITE_VERSION_NUMBER of the last writer. */
  readonly sqliteVersion: number;
}

/**
 * Says whether `bytes` begin as a SQLite database does (1.3.1 Magic Header String). False if there are fewer
 * than 16.
 */
export function hasSqliteMagic(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, i) => bytes[i] === byte);
}

// Database header, big-endian:
//   0 magic 16 bytes | 16 page size u16 | 18 write version u8 | 19 read version u8 | 20 reserved u8
//   21 payload fractions u8x3, fixed | 24 change counter | 28 page count | 32 freelist trunk | 36 freelist count
//   40 schema cookie | 44 schema format | 48 cache size | 52 largest root | 56 encoding | 60 user version
//   64 incremental vacuum | 68 application id | 72 zeros 20 bytes | 92 version valid for | 96 SQLite version
const PAYLOAD_FRACTIONS = 0x402020;

/**
 * Reads the header from the first 100 bytes of page 1. Refuses what SQLite refuses as "file is not a
 * database": `DATABASE_TRUNCATED`, `DATABASE_BAD_MAGIC`, `DATABASE_BAD_PAGE_SIZE`, and `DATABASE_BAD_HEADER`
 * for payload fractions and reserved bytes. A version above 2 is not refused here.
 */
export function decodeDatabaseHeader(bytes: Uint8Array): DatabaseHeader {
  if (bytes.length < DATABASE_HEADER_SIZE) {
    throw new SqliteFormatError('DATABASE_TRUNCATED', `Cannot read database header: ${bytes.length} bytes`);
  }
  if (!hasSqliteMagic(bytes)) {
    throw new SqliteFormatError(
      'DATABASE_BAD_MAGIC',
      'Cannot read database header: it is not SQLite format 3',
    );
  }
  const pageSize = unpackPageSize((bytes[16] << 8) | bytes[17]);
  if (!isPageSize(pageSize)) {
    throw new SqliteFormatError(
      'DATABASE_BAD_PAGE_SIZE',
      `Cannot read database header: page size ${pageSize}`,
      {pageSize},
    );
  }
  checkLayout(bytes, pageSize);
  return {
    pageSize,
    writeVersion: bytes[18],
    readVersion: bytes[19],
    reservedBytes: bytes[20],
    changeCounter: readU32be(bytes, 24),
    pageCount: readU32be(bytes, 28),
    freelistTrunkPgno: readU32be(bytes, 32),
    freelistCount: readU32be(bytes, 36),
    schemaCookie: readU32be(bytes, 40),
    schemaFormat: readU32be(bytes, 44),
    defaultCacheSize: readU32be(bytes, 48),
    largestRootPgno: readU32be(bytes, 52),
    textEncoding: readU32be(bytes, 56),
    userVersion: readU32be(bytes, 60),
    isIncrementalVacuum: readU32be(bytes, 64) !== 0,
    applicationId: readU32be(bytes, 68),
    versionValidFor: readU32be(bytes, 92),
    sqliteVersion: readU32be(bytes, 96),
  };
}

function checkLayout(bytes: Uint8Array, pageSize: number): void {
  const fractions = (bytes[21] << 16) | (bytes[22] << 8) | bytes[23];
  if (fractions !== PAYLOAD_FRACTIONS) {
    throw new SqliteFormatError('DATABASE_BAD_HEADER', 'Cannot read database header: bad payload fractions', {
      fractions,
    });
  }
  if (pageSize - bytes[20] < USABLE_SIZE_MIN) {
    throw new SqliteFormatError(
      'DATABASE_BAD_HEADER',
      `Cannot read database header: ${bytes[20]} reserved bytes in pages of ${pageSize}`,
      {pageSize, reservedBytes: bytes[20]},
    );
  }
}

/**
 * Says whether SQLite opens the database in WAL mode (1.3.3 File format version numbers): it goes by the read
 * version.
 */
export function isWalHeader(header: DatabaseHeader): boolean {
  return header.readVersion === 2;
}

/**
 * Size of the database in pages by the rule of 1.3.7 In-header database size: the header's page count if it
 * isn't 0 and was written by a SQLite that keeps it up to date, else as many as the file of `fileSize` bytes
 * has, a part of a page counting as one. A header may claim more than the file holds: SQLite calls that
 * corrupt.
 */
export function effectivePageCount(header: DatabaseHeader, fileSize: number): number {
  const isTrusted = header.pageCount !== 0 && header.changeCounter === header.versionValidFor;
  return isTrusted ? header.pageCount : Math.ceil(fileSize / header.pageSize);
}
