import {join, resolve} from 'node:path';
import {checkConfig, type Realpath} from './check.ts';
import {readSettings, type Setting} from './document.ts';
import {type Environment, expandEnvironment} from './environment.ts';
import {ConfigError, type ConfigErrorCode, type Finding, formatFinding} from './error.ts';
import {findUnsupported, isSection, suggestKey} from './known-keys.ts';
import {type Config, type Option, optionList} from './options.ts';

export interface LoadOptions {
  /** The file that the operator named; without it the usual places are searched. */
  readonly path?: string;
  readonly env: Environment;
  readonly cwd: string;
  /** The user's home directory; without it that place is not searched. */
  readonly home?: string;
  readonly expandEnv: boolean;
  /** Reads a whole file as UTF-8. Throws as `fs.readFileSync` does. */
  readonly readFile: (path: string) => string;
  readonly realpath: Realpath;
}

/** The names that a file can have, our own first: a node that moves over from LiteFS keeps its file. */
export const configFileNames: readonly string[] = ['ferrite.yml', 'litefs.yml'];

/** Where a file is looked for when the operator names none, in order. */
export function configSearchPaths(cwd: string, home: string | undefined): string[] {
  const directories = [cwd, ...(home === undefined || home === '' ? [] : [home]), '/etc'];
  return configFileNames.flatMap(name => directories.map(directory => join(directory, name)));
}

/**
 * Finds, reads and checks the configuration. Throws `ConfigError`; for a file that is there and can be read, with
 * all that is wrong in `findings`. Waits for nothing and changes nothing.
 */
export function loadConfig(load: LoadOptions): Config {
  const {path, text} = findFile(load);
  const {settings, findings: syntax} = readSettings(
    load.expandEnv ? expandEnvironment(text, load.env) : text,
  );
  if (syntax.length > 0) throw invalid('CONFIG_SYNTAX', path, syntax);
  const {values, findings} = readOptions(settings);
  // Every option that is missing here has a finding, so the values are only used when all are there.
  if (findings.length > 0) throw invalid('CONFIG_INVALID', path, findings);
  const parsed = values as Omit<Config, 'path'>;
  const config = {
    ...parsed,
    path,
    fuseDir: resolve(load.cwd, parsed.fuseDir),
    dataDir: resolve(load.cwd, parsed.dataDir),
  };
  const conflicts = checkConfig(config, load.realpath);
  if (conflicts.length > 0) throw invalid('CONFIG_INVALID', path, conflicts);
  return config;
}

function invalid(code: ConfigErrorCode, path: string, findings: readonly Finding[]): ConfigError {
  const list = findings.map(finding => `\n  ${formatFinding(finding)}`).join('');
  return new ConfigError(code, `Cannot use config file "${path}":${list}`, {findings, detail: {path}});
}

function findFile(load: LoadOptions): {path: string; text: string} {
  const paths =
    load.path === undefined ? configSearchPaths(load.cwd, load.home) : [resolve(load.cwd, load.path)];
  for (const path of paths) {
    try {
      return {path, text: load.readFile(path)};
    } catch (cause) {
      if (isMissing(cause)) continue;
      throw new ConfigError(
        'CONFIG_UNREADABLE',
        `Cannot read config file "${path}": ${cause instanceof Error ? cause.message : String(cause)}`,
        {cause, detail: {path}},
      );
    }
  }
  throw new ConfigError(
    'CONFIG_NOT_FOUND',
    `Cannot find a config file: looked for ${paths.map(path => `"${path}"`).join(', ')}`,
    {detail: {paths}},
  );
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

function readOptions(settings: readonly Setting[]): {values: Record<string, unknown>; findings: Finding[]} {
  const findings: Finding[] = [...findMisplaced(settings)];
  const values: Record<string, unknown> = {};
  const byKey = new Map(settings.map(setting => [setting.key, setting]));
  for (const [name, option] of optionList) {
    const result = readOption(option, byKey.get(option.key));
    if ('problem' in result) findings.push(result);
    else values[name] = result.value;
  }
  return {values, findings: findings.sort((a, b) => (a.line ?? 0) - (b.line ?? 0))};
}

/** A key that is set to nothing, or to null, keeps its default; so does an empty text where there is no default. */
function readOption(option: Option<unknown>, setting: Setting | undefined): {value: unknown} | Finding {
  const place = {key: option.key, ...(setting && {line: setting.line})};
  if (setting?.kind === 'list') return {...place, problem: 'a list', remedy: `write one ${option.type}`};
  const isUnset = setting?.text === undefined || (setting.text === '' && option.fallback === null);
  const text = isUnset ? option.fallback : setting.text;
  if (text === null)
    return option.required
      ? {...place, problem: 'missing', remedy: `write ${option.type}`}
      : {value: undefined};
  const parsed = option.parse(text);
  const problem = 'problem' in parsed ? parsed : option.check?.(parsed.value);
  if (problem !== undefined) return {...place, value: text, ...problem};
  return parsed as {value: unknown};
}

/** Settings that belong to no option; each unsupported section is named once, however much it holds. */
function findMisplaced(settings: readonly Setting[]): Finding[] {
  const known = new Set(optionList.map(([, option]) => option.key));
  const findings = new Map<string, Finding>();
  for (const {key, line, kind, text} of settings) {
    if (known.has(key)) continue;
    const unsupported = findUnsupported(key);
    if (unsupported !== undefined) {
      if (!findings.has(unsupported))
        findings.set(unsupported, {
          key: unsupported,
          line,
          problem: 'not supported by this version',
          remedy: 'remove it',
        });
    } else if (!isSection(key)) {
      findings.set(key, {key, line, problem: 'unknown key', remedy: describeSuggestion(key)});
    } else if (kind !== 'null') {
      findings.set(key, {
        key,
        line,
        ...(text !== undefined && {value: text}),
        problem: 'a section, not a value',
        remedy: `write its keys below it`,
      });
    }
  }
  return [...findings.values()];
}

function describeSuggestion(key: string): string {
  const suggestion = suggestKey(key);
  return suggestion === undefined ? 'remove it' : `did you mean ${suggestion}?`;
}
