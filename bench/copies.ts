import {spawn} from 'node:child_process';
import {once} from 'node:events';

/** Copies a file as `cp` does, in a process of its own: a copy into a mount must not stop the one that measures. */
export async function copy(from: string, to: string): Promise<void> {
  await runProgram('cp', [from, to]);
}

/** Makes `count` copies of a file in a folder, named `PREFIX00001.db` and so on. */
export async function copyMany(from: string, prefix: string, count: number): Promise<void> {
  await runProgram('sh', [
    '-c',
    'for i in $(seq 1 "$3"); do cp "$1" "$2$(printf %05d "$i").db" || exit 1; done',
    'sh',
    from,
    prefix,
    String(count),
  ]);
}

async function runProgram(command: string, args: readonly string[]): Promise<void> {
  const child = spawn(command, args, {
    stdio: ['ignore', 'ignore', 'inherit'],
    timeout: 600_000,
    killSignal: 'SIGKILL',
  });
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  if (code !== 0) throw new Error(`Cannot run "${command}": ${signal ?? code}`);
}
