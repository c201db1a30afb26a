/** One thing that an operator has to change: where it stands, what is wrong there, and what to write instead. */
export interface Finding {
  /** Dotted path in the file, for example `lease.type`; empty when the file as a whole is meant. */
  readonly key: string;
  /** 1-based line in the file after environment expansion; absent when the key is not in the file. */
  readonly line?: number;
  /** The text that was found; absent when nothing was, or when it may be a secret. */
  readonly value?: string;
  readonly problem: string;
  readonly remedy: string;
}

export type ConfigErrorCode = 'CONFIG_NOT_FOUND' | 'CONFIG_UNREADABLE' | 'CONFIG_SYNTAX' | 'CONFIG_INVALID';

/** The configuration cannot be used. `findings` holds everything that is wrong with it, not just the first. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code: ConfigErrorCode;
  readonly findings: readonly Finding[];
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(code: ConfigErrorCode, message: string, facts: ConfigErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : {cause: facts.cause});
    this.code = code;
    this.findings = facts.findings ?? [];
    this.detail = facts.detail ?? {};
  }
}

export interface ConfigErrorFacts {
  readonly findings?: readonly Finding[];
  readonly detail?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

/** `lease.type (line 4) is "consul": not available yet; write static`. One line, without a full stop. */
export function formatFinding(finding: Finding): string {
  const place = finding.line === undefined ? '' : ` (line ${finding.line})`;
  const value = finding.value === undefined ? '' : ` is ${JSON.stringify(finding.value)}`;
  return `${finding.key === '' ? 'file' : finding.key}${place}${value}: ${finding.problem}; ${finding.remedy}`;
}
