import pino from 'pino';
import {flattenFields} from './fields.ts';
import {formatTextLine} from './text-line.ts';

/** Facts beside a message. Bigints, errors (code, message, causes) and byte arrays may be among them. */
export type LogFields = Readonly<Record<string, unknown>>;

/**
 * A log of events. The message is a fixed phrase, what varies goes in the fields. `error` means that somebody
 * must act. A call returns when its line is written, so nothing is lost when the process dies next. Never throws.
 */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds `fields` to every line. */
  child(fields: LogFields): Logger;
}

export interface LoggerOptions {
  readonly format: 'text' | 'json';
  readonly debug: boolean;
  /** Whether each line tells the time (UTC, ISO 8601). */
  readonly timestamp: boolean;
  /** Takes one line, newline included. Standard error unless given. */
  readonly write?: (line: string) => void;
}

export function createLogger(options: LoggerOptions): Logger {
  const write = options.write ?? createStderrWriter();
  const destination = {
    write: options.format === 'text' ? (line: string) => write(formatTextLine(line)) : write,
  };
  const sink = pino(
    {
      base: null,
      level: options.debug ? 'debug' : 'info',
      timestamp: options.timestamp && pino.stdTimeFunctions.isoTime,
      formatters: {level: label => ({level: label.toUpperCase()})},
    },
    destination,
  );
  return wrap(sink, {});
}

function wrap(sink: pino.Logger, inherited: LogFields): Logger {
  const log = (level: 'debug' | 'info' | 'warn' | 'error') => (message: string, fields?: LogFields) => {
    if (sink.isLevelEnabled(level)) sink[level](flattenFields({...inherited, ...fields}), message);
  };
  return {
    debug: log('debug'),
    info: log('info'),
    warn: log('warn'),
    error: log('error'),
    child: fields => wrap(sink, {...inherited, ...fields}),
  };
}

function createStderrWriter(): (line: string) => void {
  const destination = pino.destination({dest: 2, sync: true});
  // A reader of our standard error that has gone must not take the databases with it.
  destination.on('error', () => {});
  return line => {
    destination.write(line);
  };
}
