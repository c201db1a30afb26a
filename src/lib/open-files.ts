import {readFileSync} from 'node:fs';

/** How many files the process may have open (RLIMIT_NOFILE, proc_pid_limits(5)); Node has raised it as far as it may. */
export function openFilesMax(): number {
  const found = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return found === undefined || found === 'unlimited' ? Number.POSITIVE_INFINITY : Number(found);
}
