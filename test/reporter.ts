import type {Reporter, SerializedError, TestModule} from 'vitest/node';

/** Closes a run with one plain line, `N passed, N failed`, that scripts can read. */
export class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const counts = {passed: 0, failed: unhandled.length, skipped: 0, pending: 0};
    for (const module of modules) {
      for (const each of module.children.allTests()) counts[each.result().state]++;
      // A file that does not load has no tests, and must not pass for that.
      counts.failed += module.errors().length;
    }
    // A test that never got to run is no pass.
    const failed = counts.failed + counts.pending;
    const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
    console.log(`${counts.passed} passed, ${failed} failed${skipped}`);
  }
}
