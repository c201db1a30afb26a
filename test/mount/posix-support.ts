import {spawn} from 'node:child_process';
import {existsSync} from 'node:fs';
import type {TestNode} from '../support/node.ts';

export interface Outcome {
  readonly code: number | null;
  readonly out: string;
}

const LIMIT_SECONDS = 50;
/** The system's own starts faster than a version manager's. */
const PYTHON = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';

/** Runs a program under a time limit, since a mount that hangs would hang whoever touches it. */
export async function run(program: string, args: readonly string[], input = ''): Promise<Outcome> {
  const child = spawn('timeout', ['-k', '1', String(LIMIT_SECONDS), program, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let out = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      out += text;
    });
  }
  child.stdin.on('error', () => undefined); // A program need not read what it is given.
  child.stdin.end(input);
  return await new Promise(resolve => child.once('close', code => resolve({code, out: out.trim()})));
}

const PRELUDE = `
import ctypes, errno, fcntl, mmap, os, shutil, stat, sys, time
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def fails(code, call, *args, **kwargs):
    try:
        got = call(*args, **kwargs)
    except OSError as e:
        assert e.errno == getattr(errno, code), f'{errno.errorcode.get(e.errno)} instead of {code}'
        return
    raise AssertionError(f'{code} expected, got {got!r}')
def put(path, data=b'x', flags=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o644)
    try: os.write(fd, data)
    finally: os.close(fd)
def get(path):
    with open(path, 'rb') as f: return f.read()
def libc_fails(code, result):
    assert result == -1, result
    assert ctypes.get_errno() == getattr(errno, code), errno.errorcode.get(ctypes.get_errno())
def wait_for(path):
    while not os.path.exists(path): time.sleep(0.01)
`;

/** Runs a Python script with its current folder in the mount. Its assertions are the test's. */
export async function python(node: TestNode, script: string, ...args: readonly string[]): Promise<string> {
  const {code, out} = await run(PYTHON, ['-c', PRELUDE + script, node.mount, ...args]);
  if (code !== 0)
    throw new Error(
      `python ended with ${code}:\n${out}\n--- log of the node\n${node.log.split('\n').slice(-8).join('\n')}`,
    );
  return out;
}

/** Runs a shell command in the mount as a user that is not root. */
export async function asUser(node: TestNode, command: string, uid = 12_345): Promise<Outcome> {
  const drop = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
  return await run('setpriv', [...drop, 'sh', '-c', `cd "$0" && ${command}`, node.mount]);
}

export async function shell(node: TestNode, command: string): Promise<Outcome> {
  return await run('sh', ['-c', `cd "$0" && ${command}`, node.mount]);
}

/** Runs SQL with the sqlite3 shell, in the mount. */
export async function sqlite(node: TestNode, name: string, sql: string): Promise<string> {
  const {code, out} = await run('sqlite3', ['-bail', node.path(name)], sql);
  if (code !== 0) throw new Error(out);
  return out;
}
