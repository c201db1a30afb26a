const depthMax = 4;
const itemsMax = 50;
const bytesShownMax = 32;
const causesMax = 5;

/** Keys that a line of the log has already, and the one that no object can be given by assignment. */
const reserved: ReadonlySet<string> = new Set(['level', 'msg', 'time', '__proto__']);

/**
 * Turns fields into what JSON can hold. An error at key `e` becomes its message there, its code at `e.code`, the
 * messages behind it at `e.cause`, and, if it has no code and so is our own fault, its stack at `e.stack`.
 */
export function flattenFields(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const flat: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields)) {
    const name = reserved.has(key) ? `${key}_` : key;
    if (value instanceof Error) Object.assign(flat, flattenError(name, value));
    else if (value !== undefined) flat[name] = toPlain(value, 0);
  }
  return flat;
}

function flattenError(key: string, error: Error): Record<string, unknown> {
  const causes = listCauses(error);
  const code = codeOf(error);
  return {
    [key]: error.message,
    ...(code !== undefined && {[`${key}.code`]: code}),
    ...('detail' in error && {[`${key}.detail`]: toPlain(error.detail, 0)}),
    ...(causes.length > 0 && {[`${key}.cause`]: causes.join('; ')}),
    ...(code === undefined && {[`${key}.stack`]: error.stack}),
  };
}

function listCauses(error: Error): string[] {
  const messages: string[] = [];
  let cause: unknown = error.cause;
  while (cause !== undefined && messages.length < causesMax) {
    messages.push(cause instanceof Error ? cause.message : String(toPlain(cause, 0)));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return messages;
}

function codeOf(error: Error): string | undefined {
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** `value` as JSON can hold it: cut off where it is deep, long or binary. */
function toPlain(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case 'bigint':
    case 'symbol':
      return String(value);
    case 'function':
      return '[function]';
    case 'number':
      // JSON has no such numbers and would show null.
      return Number.isFinite(value) ? value : String(value);
    case 'object':
      return value === null ? null : objectToPlain(value, depth);
    default:
      return value;
  }
}

function objectToPlain(value: object, depth: number): unknown {
  if (value instanceof Error)
    return codeOf(value) === undefined ? value.message : `${codeOf(value)}: ${value.message}`;
  if (value instanceof Uint8Array) return bytesToHex(value);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString();
  if (value instanceof URL) return value.href;
  if (depth >= depthMax) return '[...]';
  if (value instanceof Map)
    return entriesToPlain(
      [...value].map(([key, item]) => [String(key), item]),
      depth,
    );
  if (value instanceof Set) return itemsToPlain([...value], depth);
  return Array.isArray(value) ? itemsToPlain(value, depth) : entriesToPlain(Object.entries(value), depth);
}

function itemsToPlain(items: readonly unknown[], depth: number): unknown[] {
  const shown = items.slice(0, itemsMax).map(item => toPlain(item, depth + 1));
  return items.length > itemsMax ? [...shown, `[${items.length - itemsMax} more]`] : shown;
}

function entriesToPlain(
  entries: readonly (readonly [string, unknown])[],
  depth: number,
): Record<string, unknown> {
  const shown = entries.slice(0, itemsMax).map(([key, item]) => [key, toPlain(item, depth + 1)] as const);
  return Object.fromEntries(shown);
}

function bytesToHex(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes.subarray(0, bytesShownMax)).toString('hex');
  return bytes.length > bytesShownMax ? `${hex}... (${bytes.length} bytes)` : hex;
}
