/**
 * How the daemon left a database, which says what may differ without being damage.
 * `closed`: in order, and untouched since; nothing may differ. `touched`: in order, but the files are not those that it
 * closed; nothing may differ either. `daemon-died`: in use, and the machine did not lose its memory: the log may lack the
 * end of what the files have. `rebooted`: in use, and the machine did: whatever was not flushed may be gone.
 * `following`: a follower's, whose files may lack the end of what the log has.
 */
export type LeftBehind = 'closed' | 'touched' | 'daemon-died' | 'rebooted' | 'following';

/** Whether the database was closed, with all that it takes. */
export function isClosed(left: LeftBehind): boolean {
  return left === 'closed' || left === 'touched';
}
