import {statSync} from 'node:fs';
import {join} from 'node:path';
import {Disk} from '../lib/disk.ts';
import {verifyDataDirectory} from '../verify/data-directory.ts';
import type {Finding} from '../verify/finding.ts';
import {DataLock} from './data-lock.ts';

export class VerifyError extends Error {
  override readonly name = 'VerifyError';
  readonly code = 'VERIFY_NO_DATA';
}

/**
 * `ferrite verify DIR`: prints what is wrong with a data directory that nobody serves, one finding a line. Returns 1 if
 * there is any violation; notes are printed and are no failure. Throws `VerifyError`, `DataLockError`.
 */
export async function runVerify(directory: string): Promise<number> {
  if (!isDirectory(directory)) throw new VerifyError(`Cannot verify "${directory}": there is no such folder`);
  // Only such a folder gets a lock file put into it.
  if (!isDirectory(join(directory, 'databases')) && !isDirectory(join(directory, 'files'))) {
    throw new VerifyError(
      `Cannot verify "${directory}": it is no data directory, which has the folders "files" and "databases"`,
    );
  }
  await DataLock.take(directory).waitForDaemon();
  const counts = {note: 0, violation: 0};
  for await (const finding of verifyDataDirectory(new Disk(), directory)) {
    counts[finding.level]++;
    process.stdout.write(`${formatFinding(finding)}\n`);
  }
  process.stdout.write(`violations: ${counts.violation}, notes: ${counts.note}\n`);
  return counts.violation === 0 ? 0 : 1;
}

/** `violation PAGE_MISMATCH files/app.db: Page 7: not what the log says`. Paths and names may hold anything, so controls are escaped. */
export function formatFinding({level, code, path, message}: Finding): string {
  return escapeControls(`${level} ${code} ${path}: ${message}`);
}

function escapeControls(text: string): string {
  return text.replace(
    /\p{Cc}/gu,
    control => `\\x${(control.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`,
  );
}

function isDirectory(path: string): boolean {
  return statSync(path, {throwIfNoEntry: false})?.isDirectory() === true;
}
