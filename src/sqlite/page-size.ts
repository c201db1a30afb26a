/** Smallest page size, in bytes (1.3.2 Page Size). */
export const PAGE_SIZE_MIN = 512;
/** Largest page size, in bytes (1.3.2 Page Size). */
export const PAGE_SIZE_MAX = 65_536;

/** Says whether a database can have pages of `size` bytes: a power of two from 512 to 65,536. */
export function isPageSize(size: number): boolean {
  return size >= PAGE_SIZE_MIN && size <= PAGE_SIZE_MAX && (size & (size - 1)) === 0;
}

/**
 * Says a page size in sixteen bits, as the database header and the wal-index header do: 65,536 doesn't
 * fit and is written as 1.
 */
export function packPageSize(pageSize: number): number {
  return pageSize === PAGE_SIZE_MAX ? 1 : pageSize;
}

/** The page size that sixteen bits stand for. Not checked: see `isPageSize`. */
export function unpackPageSize(packed: number): number {
  return packed === 1 ? PAGE_SIZE_MAX : packed;
}
