import {type Flag, HelpRequest, type ParsedArguments, parseArguments, UsageError} from './arguments.ts';

interface CommandUsage {
  /** What follows the name on the command line. */
  readonly synopsis: string;
  readonly summary: string;
  readonly prose: string;
  readonly flags: readonly Flag[];
}

const configFlags: readonly Flag[] = [
  {
    name: 'config',
    placeholder: 'PATH',
    doc: 'the config file; otherwise ferrite.yml or litefs.yml is looked for in the working directory, the home directory and /etc',
  },
  {name: 'no-expand-env', doc: 'leave references to environment variables in the config file as they are'},
];

export type CommandName = 'mount' | 'reload' | 'verify' | 'version' | 'help';

/** Every command, in the order of the usage text. */
export const commandUsages: Readonly<Record<CommandName, CommandUsage>> = {
  mount: {
    synopsis: '[flags]',
    summary: 'mount the directory and replicate the databases in it',
    prose: 'Mounts the directory that the config file names and stays until it gets SIGINT or SIGTERM.',
    flags: [
      ...configFlags,
      {name: 'skip-unmount', doc: 'do not take away a mount that an earlier daemon left behind'},
      {name: 'debug', doc: 'log debugging messages, whatever the config file says'},
    ],
  },
  reload: {
    synopsis: '[flags]',
    summary: 'replace the running daemon without unmounting',
    prose:
      'Starts a new daemon behind the mount of the running one, with the program and the config file as they are now. Applications wait meanwhile.',
    flags: configFlags,
  },
  verify: {
    synopsis: 'DIR',
    summary: 'check a data directory while no daemon serves it',
    prose:
      'Checks every database, log and small file in the data directory DIR and prints whatever is wrong. Changes nothing. Exits with 1 when anything is.',
    flags: [],
  },
  version: {
    synopsis: '',
    summary: 'print the version',
    prose: 'Prints the version of FerriteFS and of Node.',
    flags: [],
  },
  help: {
    synopsis: '[COMMAND]',
    summary: 'explain a command',
    prose: 'Explains a command, or lists all of them.',
    flags: [],
  },
};

/** What the operator asked for. */
export type Invocation =
  | {
      readonly command: 'mount';
      readonly config: ConfigSource;
      readonly skipUnmount: boolean;
      readonly debug: boolean;
    }
  | {readonly command: 'reload'; readonly config: ConfigSource}
  | {readonly command: 'verify'; readonly directory: string}
  | {readonly command: 'version'}
  /** Print `text`; `exitCode` is 0 when help was asked for by name, else 2 as LiteFS has it. */
  | {readonly command: 'help'; readonly text: string; readonly exitCode: 0 | 2};

export interface ConfigSource {
  readonly path: string | undefined;
  readonly expandEnv: boolean;
}

/** Reads the command line behind the program's name. Throws `UsageError`. */
export function parseCommandLine(argv: readonly string[]): Invocation {
  const [name = '', ...args] = argv;
  if (name === '' || name.startsWith('-')) return {command: 'help', text: formatUsage(), exitCode: 2};
  if (!isCommandName(name))
    throw new UsageError('USAGE_UNKNOWN_COMMAND', `Cannot run "${name}": unknown command`);
  try {
    return interpret(name, parseArguments(name, commandUsages[name].flags, args));
  } catch (error) {
    if (error instanceof HelpRequest) return {command: 'help', text: formatCommandUsage(name), exitCode: 2};
    throw error;
  }
}

export function isCommandName(name: string): name is CommandName {
  return Object.hasOwn(commandUsages, name);
}

function interpret(name: CommandName, parsed: ParsedArguments): Invocation {
  const {flags, positional} = parsed;
  const path = flags.get('config');
  const config = {
    path: typeof path === 'string' ? path : undefined,
    expandEnv: flags.get('no-expand-env') !== true,
  };
  switch (name) {
    case 'mount':
      refuseExec(parsed);
      refuseArguments(name, positional);
      return {
        command: name,
        config,
        skipUnmount: flags.get('skip-unmount') === true,
        debug: flags.get('debug') === true,
      };
    case 'reload':
      refuseArguments(name, positional);
      return {command: name, config};
    case 'verify':
      return {command: name, directory: onlyArgument(name, [...positional, ...(parsed.rest ?? [])])};
    case 'version':
      refuseArguments(name, positional);
      return {command: name};
    case 'help':
      return {command: name, text: explain(positional), exitCode: 0};
  }
}

function refuseExec(parsed: ParsedArguments): void {
  if (parsed.rest === undefined) return;
  throw new UsageError(
    'USAGE_BAD_ARGUMENT',
    'Cannot run "mount": starting an application behind "--" is not supported by this version',
    'mount',
  );
}

function refuseArguments(command: CommandName, positional: readonly string[]): void {
  if (positional.length === 0) return;
  throw new UsageError(
    'USAGE_BAD_ARGUMENT',
    `Cannot run "${command}": it takes no argument "${positional[0]}"`,
    command,
  );
}

function onlyArgument(command: CommandName, positional: readonly string[]): string {
  const [argument, ...others] = positional;
  if (argument === undefined) {
    throw new UsageError('USAGE_BAD_ARGUMENT', `Cannot run "${command}": which data directory?`, command);
  }
  refuseArguments(command, others);
  return argument;
}

function explain(positional: readonly string[]): string {
  const [name, ...others] = positional;
  if (name === undefined) return formatUsage();
  refuseArguments('help', others);
  if (!isCommandName(name))
    throw new UsageError('USAGE_UNKNOWN_COMMAND', `Cannot explain "${name}": unknown command`);
  return formatCommandUsage(name);
}

/** The list of commands. */
export function formatUsage(): string {
  const rows = Object.entries(commandUsages).map(([name, {summary}]) => `  ${name.padEnd(9)}${summary}`);
  return [
    'ferrite mounts a directory and replicates the SQLite databases in it.',
    '',
    'Usage: ferrite COMMAND [flags] [arguments]',
    '',
    ...rows,
    '',
    'ferrite help COMMAND explains one of them.',
    '',
  ].join('\n');
}

export function formatCommandUsage(name: CommandName): string {
  const {synopsis, prose, flags} = commandUsages[name];
  const rows = flags.flatMap(flag => [
    `  -${flag.name}${flag.placeholder === undefined ? '' : ` ${flag.placeholder}`}`,
    `      ${flag.doc}`,
  ]);
  const flagText = rows.length === 0 ? [] : ['', 'Flags:', ...rows];
  return [`Usage: ferrite ${name} ${synopsis}`.trimEnd(), '', prose, ...flagText, ''].join('\n');
}
