/** A command line that does not say what to do. Exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code: 'USAGE_UNKNOWN_COMMAND' | 'USAGE_UNKNOWN_FLAG' | 'USAGE_BAD_VALUE' | 'USAGE_BAD_ARGUMENT';
  /** The command whose usage to point at; absent when it is the command itself that is unknown. */
  readonly command: string | undefined;

  constructor(code: UsageError['code'], message: string, command?: string) {
    super(message);
    this.code = code;
    this.command = command;
  }
}

/** A flag as Go's `flag` package knows it: `-name` and `--name` are the same. */
export interface Flag {
  readonly name: string;
  /** What stands for the value in the usage text; a flag without one is a boolean. */
  readonly placeholder?: string;
  readonly doc: string;
}

export interface ParsedArguments {
  /** The last value of each flag that was given; `true` or `false` for a boolean. */
  readonly flags: ReadonlyMap<string, string | boolean>;
  /** Arguments from the first one that is no flag, up to a `--`. */
  readonly positional: readonly string[];
  /** Arguments behind `--`; absent when there is none. */
  readonly rest: readonly string[] | undefined;
}

/** Thrown for `-h` and `-help` where the command has no such flag: not an error, but nothing to run either. */
export class HelpRequest extends Error {
  override readonly name = 'HelpRequest';
  readonly command: string;

  constructor(command: string) {
    super(`Cannot run "${command}": help was asked for`);
    this.command = command;
  }
}

/**
 * Reads arguments by the rules of Go's `flag` package: `-x`, `--x`, `-x=value` and `-x value`, booleans `-b` or
 * `-b=false`; flags end at the first argument that is none, at `-` and at `--`. Throws `UsageError`, `HelpRequest`.
 */
export function parseArguments(
  command: string,
  known: readonly Flag[],
  args: readonly string[],
): ParsedArguments {
  const flags = new Map<string, string | boolean>();
  let index = 0;
  while (index < args.length) {
    const parts = /^--?(?<name>[^-=][^=]*)(?:=(?<value>.*))?$/s.exec(args[index]);
    if (parts?.groups === undefined) break;
    const flag = findFlag(command, known, parts.groups.name);
    index++;
    let value: string | undefined = parts.groups.value;
    if (flag.placeholder !== undefined && value === undefined) value = args[index++];
    flags.set(flag.name, readValue(command, flag, value));
  }
  return {flags, ...splitPositional(command, args.slice(index))};
}

function findFlag(command: string, known: readonly Flag[], name: string): Flag {
  const flag = known.find(candidate => candidate.name === name);
  if (flag !== undefined) return flag;
  if (name === 'h' || name === 'help') throw new HelpRequest(command);
  throw new UsageError('USAGE_UNKNOWN_FLAG', `Cannot run "${command}": unknown flag "-${name}"`, command);
}

const trueWords: ReadonlySet<string> = new Set(['1', 't', 'T', 'TRUE', 'true', 'True']);
const falseWords: ReadonlySet<string> = new Set(['0', 'f', 'F', 'FALSE', 'false', 'False']);

function readValue(command: string, flag: Flag, value: string | undefined): string | boolean {
  if (flag.placeholder !== undefined) {
    if (value !== undefined) return value;
    throw new UsageError(
      'USAGE_BAD_VALUE',
      `Cannot run "${command}": flag "-${flag.name}" needs a value`,
      command,
    );
  }
  if (value === undefined || trueWords.has(value)) return true;
  if (falseWords.has(value)) return false;
  const message = `Cannot run "${command}": flag "-${flag.name}" is "${value}", which is no boolean`;
  throw new UsageError('USAGE_BAD_VALUE', message, command);
}

function splitPositional(
  command: string,
  args: readonly string[],
): Pick<ParsedArguments, 'positional' | 'rest'> {
  const [first] = args;
  // Go would call "---x" and "-=x" bad flags, not arguments.
  if (first !== undefined && first !== '--' && /^-[-=]/.test(first)) {
    throw new UsageError('USAGE_UNKNOWN_FLAG', `Cannot run "${command}": bad flag "${first}"`, command);
  }
  const dashes = args.indexOf('--');
  return dashes < 0
    ? {positional: args, rest: undefined}
    : {positional: args.slice(0, dashes), rest: args.slice(dashes + 1)};
}
