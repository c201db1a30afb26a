import {expect, test} from 'vitest';
import {FollowedDatabase, Window} from '../../src/cluster/followed-database.ts';
import {TurnQueue, type Weight, WorkQueue} from '../../src/cluster/scheduler.ts';

test('WorkQueue bounds what runs, in order of arrival and apart for each weight', () => {
  const queue = new WorkQueue({small: 2, bulk: 1});
  for (const id of ['a', 'b', 'c', 'a']) queue.add(id, 'small');
  for (const id of ['x', 'y']) queue.add(id, 'bulk');
  const taken = [queue.take(), queue.take(), queue.take(), queue.take()];
  expect(taken.map(permit => permit?.id)).toEqual(['a', 'b', 'x', undefined]);
  taken[2]?.release();
  taken[2]?.release();
  expect(queue.take()?.id).toBe('y');
  expect(queue.take()).toBeUndefined();
  taken[0]?.release();
  expect(queue.take()?.id).toBe('c');
  expect(queue.waitingCount).toBe(0);
});

test('WorkQueue keeps a database once, under its last weight', () => {
  const queue = new WorkQueue({small: 9, bulk: 9});
  queue.add('a', 'small');
  queue.add('a', 'bulk');
  queue.add('b', 'bulk');
  queue.remove('b');
  expect([queue.take()?.weight, queue.take()]).toEqual(['bulk', undefined]);
});

async function transfer(
  queue: TurnQueue,
  name: string,
  count: number,
  sent: string[],
  weight: Weight = 'bulk',
) {
  const {signal} = new AbortController();
  for (let index = 0; index < count; index++) {
    await queue.wait({weight, isAllowed: () => true, send: () => sent.push(name)}, signal);
  }
}

const settle = () => new Promise(resolve => setImmediate(resolve));

test('TurnQueue lets transfers take turns, and small ones first, but not for ever', async () => {
  const queue = new TurnQueue();
  const sent: string[] = [];
  const all = [
    transfer(queue, 'x', 5, sent),
    transfer(queue, 'y', 5, sent),
    transfer(queue, 's', 20, sent, 'small'),
  ];
  while (sent.length < 30) {
    expect(queue.grant()).toBe(true);
    await settle();
  }
  await Promise.all(all);
  expect(queue.grant()).toBe(false);
  expect(sent.filter(name => name !== 's').join('')).toBe('xyxyxyxyxy');
  expect(sent.slice(0, 10).join('')).toBe('ssssssssxs');
});

test('TurnQueue passes over who may not send, and forgets who gives up', async () => {
  const queue = new TurnQueue();
  const sent: string[] = [];
  const stop = new AbortController();
  let isOpen = false;
  const closed = queue.wait(
    {weight: 'bulk', isAllowed: () => isOpen, send: () => sent.push('closed')},
    stop.signal,
  );
  const open = transfer(queue, 'open', 1, sent);
  expect([queue.grant(), queue.grant()]).toEqual([true, false]);
  await open;
  stop.abort(new Error('given up'));
  await expect(closed).rejects.toThrow('given up');
  isOpen = true;
  expect(queue.grant()).toBe(false);
  expect(sent).toEqual(['open']);
});

test('Window: stalled databases never take all, and one frame is always let through', () => {
  const window = new Window(1_000_000, 4_000_000);
  const stalled = Array.from({length: 8}, (_, index) => new FollowedDatabase(`${index}`, {at: 'live'}));
  for (const database of stalled) while (window.allows(database, 50_000)) window.add(database, 50_000);
  expect(stalled[0].inFlightBytes).toBeLessThanOrEqual(1_000_000);
  expect(window.inFlightBytes).toBeLessThan(4_000_000);
  const other = new FollowedDatabase('other', {at: 'live'});
  expect(window.allows(other, 256_000)).toBe(true);
  window.add(other, 256_000);
  expect(window.take(other, 256_001)).toBe(false);
  expect(window.take(other, 256_000)).toBe(true);
  window.forget(stalled[0]);
  expect(window.inFlightBytes).toBe(stalled.reduce((sum, database) => sum + database.inFlightBytes, 0));
});
