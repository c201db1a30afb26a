/** Thrown by `assert`: we are wrong, not the world. Never handled; the process stops. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

/** Throws `AssertionError` unless `condition` holds. `state` says what must be true, in positive form. */
export function assert(condition: boolean, state: string): asserts condition {
  if (!condition) throw new AssertionError(`Cannot continue: it must hold that ${state}`);
}

/** Marks a switch as total: a new member of the union fails to compile until the switch names it. */
export function unreachable(value: never): never {
  throw new AssertionError(`Cannot continue: unexpected ${JSON.stringify(value)}`);
}
