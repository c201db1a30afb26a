import {closeSync, openSync, readSync} from 'node:fs';
import {expect, test} from 'vitest';
import {KeepAwake} from '../../src/lib/keep-awake.ts';

/** What the kernel allows at the moment, of all requests: microseconds (pm_qos_interface.rst). */
function wakeUpMaxUs(): number {
  const fd = openSync('/dev/cpu_dma_latency', 'r');
  const bytes = new Int32Array(1);
  try {
    expect(readSync(fd, bytes)).toBe(4);
  } finally {
    closeSync(fd);
  }
  return bytes[0];
}

function note(keepAwake: KeepAwake, count: number): void {
  for (let i = 0; i < count; i++) keepAwake.note();
}

test('CPUs are kept awake while much happens, and let go when little does', () => {
  const before = wakeUpMaxUs();
  const keepAwake = new KeepAwake(true);
  note(keepAwake, 10);
  expect(wakeUpMaxUs()).toBe(before);
  note(keepAwake, 1000);
  expect(wakeUpMaxUs()).toBeLessThanOrEqual(2);
  keepAwake.tick();
  note(keepAwake, 1000);
  keepAwake.tick();
  expect(wakeUpMaxUs()).toBeLessThanOrEqual(2);
  note(keepAwake, 10);
  keepAwake.tick();
  expect(wakeUpMaxUs()).toBe(before);
  keepAwake.close();
});

test('the request ends with its descriptor', () => {
  const before = wakeUpMaxUs();
  const keepAwake = new KeepAwake(true);
  note(keepAwake, 1000);
  expect(wakeUpMaxUs()).toBeLessThanOrEqual(2);
  keepAwake.close();
  expect(wakeUpMaxUs()).toBe(before);
});

test('unwanted, it asks for nothing', () => {
  const before = wakeUpMaxUs();
  const keepAwake = new KeepAwake(false);
  note(keepAwake, 1000);
  expect(wakeUpMaxUs()).toBe(before);
  keepAwake.tick();
  keepAwake.close();
});
