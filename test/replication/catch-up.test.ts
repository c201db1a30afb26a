import {readdirSync} from 'node:fs';
import {join} from 'node:path';
import {afterEach, expect, test} from 'vitest';
import type {LargeInfo} from '../../src/cluster/replication-sink.ts';
import {EMPTY_POSITION} from '../../src/ltx/position.ts';
import {type Follower, startFollower} from '../cluster/harness.ts';
import {MemorySink} from '../cluster/memory-sink.ts';
import {TestNode, until} from '../support/node.ts';
import {python} from './support.ts';

const LIMIT_MS = 60_000;

let primary: TestNode;

afterEach(async () => await primary.destroy());

/** A follower that stops taking in the first large transfer which comes, until it is told to go on. */
class StoppingSink extends MemorySink {
  began: LargeInfo['kind'] | undefined;
  ended: 'finished' | 'aborted' | undefined;
  goOn: () => void = () => undefined;
  readonly #gate = new Promise<void>(resolve => {
    this.goOn = resolve;
  });

  override async beginLarge(_id: string, info: LargeInfo) {
    this.began = info.kind;
    return {
      writePages: () => this.#gate,
      writeRecord: () => this.#gate,
      finish: async () => {
        this.ended = 'finished';
        return EMPTY_POSITION;
      },
      abort: async () => {
        this.ended ??= 'aborted';
      },
    };
  }
}

/** Ends a connection that waits in the transfer which `sink` stopped. */
async function leave(follower: Follower, sink: StoppingSink): Promise<void> {
  const left = follower.stop();
  sink.goOn();
  await left;
}

/** A large database of which most compresses to nothing, so that its log is the shorter way. */
const LARGE_WITH_SHORT_LOG = `
c = connect(sys.argv[1])
c.execute('pragma journal_mode=wal')
c.execute('create table t(x)')
c.execute('insert into t values(zeroblob(30000000))')
for i in range(200): c.execute('insert into t values(randomblob(40000))')
`;

function leftIn(node: TestNode): string[] {
  return readdirSync(join(node.data, 'incoming'));
}

test('a compacted log leaves nothing in incoming/, whenever the follower goes away', async () => {
  primary = await TestNode.start({role: 'primary'});
  await python(LARGE_WITH_SHORT_LOG, [primary.path('a.db')]);

  const sink = new StoppingSink();
  const sending = startFollower(sink, primary.url);
  await until(
    () => sink.began === 'record',
    LIMIT_MS,
    () => primary.log,
  );
  expect(leftIn(primary)).toEqual([]);
  await leave(sending, sink);

  const other = new StoppingSink();
  const leaving = startFollower(other, primary.url);
  await until(
    () => leftIn(primary).length > 0,
    LIMIT_MS,
    () => 'nothing was compacted',
  );
  await leave(leaving, other);
  await until(
    () => leftIn(primary).length === 0,
    LIMIT_MS,
    () => leftIn(primary).join(),
  );
});

test('a snapshot is finished although the log has become longer than the database meanwhile', async () => {
  primary = await TestNode.start({
    role: 'primary',
    set: {'data.retention': '1ms', 'data.retention-monitor-interval': '100ms'},
  });
  const path = primary.path('a.db');
  await python(
    "c = connect(sys.argv[1]); c.execute('pragma journal_mode=wal'); c.execute('create table t(x)'); [c.execute('insert into t values(randomblob(3000000))') for i in range(2)]",
    [path],
  );
  const sink = new StoppingSink();
  const follower = startFollower(sink, primary.url);
  await until(
    () => sink.began === 'snapshot',
    LIMIT_MS,
    () => `${sink.began}\n${primary.log}`,
  );
  await python(
    "c = connect(sys.argv[1]); [c.execute('update t set x=randomblob(3000000) where rowid=1') for i in range(4)]",
    [path],
  );
  sink.goOn();
  await until(
    () => sink.ended !== undefined,
    LIMIT_MS,
    () => primary.log,
  );
  expect(sink.ended, primary.log).toBe('finished');
  await follower.stop();
});
