import {fdatasyncSync, fsyncSync, writeSync} from 'node:fs';
import {workerData} from 'node:worker_threads';
import {FuseReplies} from '../fuse/reply.ts';
import {
  FLUSH_DATA_ONLY,
  FLUSH_DONE,
  FLUSH_ERRNO,
  FLUSH_FD,
  FLUSH_HAS_REPLY,
  FLUSH_ID_HIGH,
  FLUSH_ID_LOW,
  FLUSH_STATE,
  FLUSH_WAKES,
  FLUSH_WORKING,
  type FlushWorkerData,
} from './flusher.ts';

const {shared, fuseFd, wakeFd} = workerData as FlushWorkerData;
const slots = new Int32Array(shared);
const replies = new FuseReplies(fuseFd);
const WAKE = new Uint8Array(new BigUint64Array([1n]).buffer);

function flush(): number {
  try {
    if (slots[FLUSH_DATA_ONLY] === 1) fdatasyncSync(slots[FLUSH_FD]);
    else fsyncSync(slots[FLUSH_FD]);
    return 0;
  } catch (error) {
    const {errno} = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    return -errno;
  }
}

for (;;) {
  const state = Atomics.load(slots, FLUSH_STATE);
  if (state !== FLUSH_WORKING) {
    Atomics.wait(slots, FLUSH_STATE, state);
    continue;
  }
  slots[FLUSH_ERRNO] = flush();
  if (slots[FLUSH_HAS_REPLY] === 1) {
    replies.error({low: slots[FLUSH_ID_LOW] >>> 0, high: slots[FLUSH_ID_HIGH] >>> 0}, slots[FLUSH_ERRNO]);
  }
  Atomics.store(slots, FLUSH_STATE, FLUSH_DONE);
  if (Atomics.load(slots, FLUSH_WAKES) === 1) writeSync(wakeFd, WAKE);
}
