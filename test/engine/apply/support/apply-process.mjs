// Applies recorded transactions to a followed database, for a test to kill.
// argv: compiled sources, database, recorded transactions, index of the first. Writes each index after it is applied.
import {randomInt} from 'node:crypto';
import {readFileSync, writeSync} from 'node:fs';
import {join} from 'node:path';

const [, , root, path, recording, first] = process.argv;
const {FollowerDatabase} = await import(join(root, 'engine/apply/follower-database.js'));
const {Disk} = await import(join(root, 'lib/disk.js'));
const {LockBytes} = await import(join(root, 'sqlite/lock-bytes.js'));

const sleep = ms => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const follower = FollowerDatabase.open({
  disk: new Disk(),
  backing: path,
  mounted: path,
  cache: {store() {}, invalidate() {}},
  lockBytes: new LockBytes(),
  sync: 'off',
  randomU32: () => randomInt(2 ** 32),
  nowMs: () => performance.now(),
  sleep,
  lockTimeoutMs: 5000,
  checkpointFrameCount: 60,
});

// Recording: for each transaction a line of JSON {pageSize, commit, pages: [[pgno, base64], ...]}.
const transactions = readFileSync(recording, 'utf8').trim().split('\n');
for (let index = Number(first); index < transactions.length; index++) {
  const {pageSize, commit, pages} = JSON.parse(transactions[index]);
  const transaction = {
    pageSize,
    commit,
    pageCountHint: pages.length,
    *pages() {
      for (const [pgno, text] of pages) yield {pgno, page: new Uint8Array(Buffer.from(text, 'base64'))};
    },
  };
  while (follower.apply(transaction) !== 'applied') sleep(1);
  writeSync(1, `${index}\n`);
  if (follower.isCheckpointDue) follower.checkpointStep(0);
  if (index % 8 === 0) sleep(4);
}
follower.close();
