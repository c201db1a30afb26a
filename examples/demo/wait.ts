import {setTimeout as sleep} from 'node:timers/promises';

const POLL_MS = 20;

/** Why the demonstration could not go on; everything that waits is ended with one of these. */
export class DemoError extends Error {
  override readonly name = 'DemoError';
  readonly code:
    | 'DEMO_TIMEOUT'
    | 'DEMO_NODE_ENDED'
    | 'DEMO_PROGRAM_FAILED'
    | 'DEMO_UNEQUAL'
    | 'DEMO_INTERRUPTED';

  constructor(code: DemoError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export interface WaitOptions {
  /** What does not happen if time runs out, for the message: "Cannot <what>: …". */
  readonly what: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Polls `probe` until it gives something. Throws `DEMO_TIMEOUT`, or the reason of `signal`. */
export async function waitFor<T>(options: WaitOptions, probe: () => Promise<T | undefined>): Promise<T> {
  const endMs = performance.now() + options.timeoutMs;
  for (;;) {
    options.signal.throwIfAborted();
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() > endMs)
      throw new DemoError(
        'DEMO_TIMEOUT',
        `Cannot ${options.what}: not done within ${options.timeoutMs / 1000} s`,
      );
    await sleep(POLL_MS);
  }
}

/** Ends with `promise`, or throws `DEMO_TIMEOUT` or the reason of `signal` first; `promise` is not cancelled. */
export async function within<T>(options: WaitOptions, promise: Promise<T>): Promise<T> {
  const timer = new AbortController();
  const {signal} = options;
  const timedOut = sleep(options.timeoutMs, undefined, {signal: timer.signal}).then(() => {
    throw new DemoError(
      'DEMO_TIMEOUT',
      `Cannot ${options.what}: not done within ${options.timeoutMs / 1000} s`,
    );
  });
  let onAbort: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([promise, timedOut, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
    timer.abort();
    timedOut.catch(() => undefined);
  }
}
