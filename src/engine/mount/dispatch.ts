import {constants} from 'node:os';
import * as op from '../../fuse/opcodes.ts';
import type {FuseRequest} from '../../fuse/request.ts';
import {errnoOf, type MountContext, type Operation} from './context.ts';
import * as files from './file-operations.ts';
import * as folders from './folder-operations.ts';
import * as lookups from './lookup-operations.ts';

const {EIO, ENOSYS} = constants.errno;

/** Whatever is not here is answered ENOSYS: once for FLUSH, OPENDIR and RELEASEDIR, since the kernel then never asks again. */
const OPERATIONS: ReadonlyMap<number, Operation> = new Map<number, Operation>([
  [op.FUSE_LOOKUP, lookups.lookup],
  [op.FUSE_GETATTR, lookups.getattr],
  [op.FUSE_SETATTR, files.setattr],
  [op.FUSE_READLINK, lookups.readlink],
  [op.FUSE_SYMLINK, folders.symlink],
  [op.FUSE_MKNOD, folders.mknod],
  [op.FUSE_MKDIR, folders.mkdir],
  [op.FUSE_UNLINK, folders.unlink],
  [op.FUSE_RMDIR, folders.rmdir],
  [op.FUSE_RENAME, folders.rename],
  [op.FUSE_RENAME2, folders.rename2],
  [op.FUSE_LINK, folders.link],
  [op.FUSE_OPEN, files.open],
  [op.FUSE_READ, files.read],
  [op.FUSE_WRITE, files.write],
  [op.FUSE_STATFS, lookups.statfs],
  [op.FUSE_RELEASE, files.release],
  [op.FUSE_FSYNC, files.fsync],
  [op.FUSE_FSYNCDIR, files.fsync],
  [op.FUSE_READDIR, lookups.readdir],
  [op.FUSE_CREATE, files.create],
  [op.FUSE_FALLOCATE, files.fallocate],
]);

/** What the kernel expects no answer to. INTERRUPT needs none either: every request is answered soon anyway. */
const UNANSWERED: ReadonlyMap<number, Operation> = new Map<number, Operation>([
  [op.FUSE_FORGET, lookups.forget],
  [op.FUSE_BATCH_FORGET, lookups.batchForget],
  [op.FUSE_INTERRUPT, () => undefined],
  [op.FUSE_NOTIFY_REPLY, () => undefined],
]);

/** Serves one request: every path ends in one answer, or in a wait list, or needs none. */
export function dispatch(context: MountContext, request: FuseRequest): void {
  const {opcode} = request;
  const silent = UNANSWERED.get(opcode);
  if (silent !== undefined) {
    silent(context, request);
    return;
  }
  const operation = OPERATIONS.get(opcode);
  if (operation === undefined) {
    context.replies.error(request.id, opcode === op.FUSE_DESTROY ? 0 : ENOSYS);
    return;
  }
  const {id} = request;
  try {
    operation(context, request);
  } catch (error) {
    const errno = errnoOf(error);
    context.replies.error(id, errno ?? EIO);
    if (errno === undefined) throw error;
  }
}
