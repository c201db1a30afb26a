import {ConfigError} from '../config/error.ts';
import {UsageError} from './arguments.ts';

/** What the operator's shell gets: 2 for a command line or config file to correct, 1 for everything else. */
export type ExitCode = 1 | 2;

export interface Exit {
  readonly code: ExitCode;
  /** What to print on standard error, without a newline at its end. */
  readonly text: string;
}

/**
 * Turns whatever a command threw into words and an exit code. Errors with a code are the world's, and their
 * message says it all; one without is our own fault, so its stack goes along.
 */
export function describeExit(error: unknown): Exit {
  if (error instanceof UsageError) return {code: 2, text: `ERROR: ${error.message}\n${pointAtHelp(error)}`};
  if (error instanceof ConfigError) return {code: 2, text: `ERROR: ${error.message}`};
  if (!(error instanceof Error)) return {code: 1, text: `ERROR: Cannot continue: ${String(error)}`};
  if (!('code' in error)) return {code: 1, text: `ERROR: ${error.stack ?? error.message}`};
  return {code: 1, text: `ERROR: ${error.message}${describeCause(error)}`};
}

function pointAtHelp(error: UsageError): string {
  return error.command === undefined
    ? 'Run "ferrite help" for the commands'
    : `Run "ferrite help ${error.command}" for its usage`;
}

function describeCause(error: Error): string {
  const {cause} = error;
  return cause instanceof Error && !error.message.includes(cause.message) ? ` (${cause.message})` : '';
}
