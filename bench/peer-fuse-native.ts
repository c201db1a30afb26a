import {
  closeSync,
  fdatasync,
  fstatSync,
  fsync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmdirSync,
  type Stats,
  statfsSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

// A process that mounts a folder with fuse-native and passes every request on: the least that a file system in
// Node on that binding can do. Started with: backing folder, mount, folder whose node_modules has fuse-native.
//
// To have it: `npm install fuse-native@2.2.6` somewhere (its builds for x64 need no compiler) and
// `apt-get install libfuse2 fuse`, whose libfuse.so.2 it is linked to; then `npm run bench -- --peer THAT_FOLDER`.

type Reply = (errno: number, ...values: unknown[]) => void;
type TransferArguments = [
  path: string,
  fd: number,
  bytes: Buffer,
  size: number,
  offset: number,
  reply: Reply,
];
type Operation = (...args: never[]) => void;

interface FuseNative {
  new (
    directory: string,
    operations: Readonly<Record<string, Operation>>,
    options: Readonly<Record<string, unknown>>,
  ): {
    mount(done: (error: Error | null | undefined) => void): void;
  };
}

const [backing = '', directory = '', peerDirectory = ''] = process.argv.slice(2);
const at = (path: string) => join(backing, path);

/** Answers with what `call` returns, or with its errno. */
function answer(reply: Reply, call: () => unknown): void {
  let value: unknown;
  try {
    value = call();
  } catch (error) {
    const {errno} = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    reply(errno);
    return;
  }
  if (value === undefined) reply(0);
  else reply(0, value);
}

/** READ and WRITE answer with a byte count in the place of the errno. */
function answerCount(reply: Reply, call: () => number): void {
  try {
    reply(call());
  } catch (error) {
    const {errno} = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    reply(errno);
  }
}

function attributes(stats: Stats): unknown {
  const {mtime, atime, ctime, nlink, size, mode, uid, gid} = stats;
  return {mtime, atime, ctime, nlink, size, mode, uid, gid};
}

const operations: Readonly<Record<string, Operation>> = {
  getattr: (path: string, reply: Reply) => answer(reply, () => attributes(lstatSync(at(path)))),
  fgetattr: (_path: string, fd: number, reply: Reply) => answer(reply, () => attributes(fstatSync(fd))),
  statfs: (_path: string, reply: Reply) => answer(reply, () => statfsSync(backing)),
  readdir: (path: string, reply: Reply) => answer(reply, () => readdirSync(at(path))),
  open: (path: string, flags: number, reply: Reply) => answer(reply, () => openSync(at(path), flags)),
  create: (path: string, mode: number, reply: Reply) => answer(reply, () => openSync(at(path), 'wx+', mode)),
  release: (_path: string, fd: number, reply: Reply) => answer(reply, () => closeSync(fd)),
  read: (...[, fd, bytes, size, offset, reply]: TransferArguments) =>
    answerCount(reply, () => readSync(fd, bytes, 0, size, offset)),
  write: (...[, fd, bytes, size, offset, reply]: TransferArguments) =>
    answerCount(reply, () => writeSync(fd, bytes, 0, size, offset)),
  fsync: (_path: string, isDataOnly: number, fd: number, reply: Reply) =>
    (isDataOnly === 0 ? fsync : fdatasync)(fd, error => reply(error?.errno ?? 0)),
  truncate: (path: string, size: number, reply: Reply) => answer(reply, () => truncateSync(at(path), size)),
  ftruncate: (_path: string, fd: number, size: number, reply: Reply) =>
    answer(reply, () => ftruncateSync(fd, size)),
  unlink: (path: string, reply: Reply) => answer(reply, () => unlinkSync(at(path))),
  rename: (from: string, to: string, reply: Reply) => answer(reply, () => renameSync(at(from), at(to))),
  mkdir: (path: string, mode: number, reply: Reply) => answer(reply, () => void mkdirSync(at(path), mode)),
  rmdir: (path: string, reply: Reply) => answer(reply, () => rmdirSync(at(path))),
  utimens: (path: string, atime: number, mtime: number, reply: Reply) =>
    answer(reply, () => utimesSync(at(path), atime / 1000, mtime / 1000)),
};

try {
  const Fuse = createRequire(join(peerDirectory, 'package.json'))('fuse-native') as FuseNative;
  const fuse = new Fuse(directory, operations, {timeout: false, fsname: 'ferrite-bench-peer'});
  fuse.mount(error => process.send?.(error ? {type: 'failed', text: error.message} : {type: 'ready'}));
} catch (error) {
  process.send?.({
    type: 'failed',
    text: error instanceof Error ? error.message.split('\n')[0] : String(error),
  });
  process.disconnect?.();
}
process.on('disconnect', () => process.exit(0));
