/**
 * Which folder of `src/` may import from which: imports point one way, type imports included. An entry is a folder,
 * a module in one (`engine/client`, with the files below a folder of that name), or either for types only.
 */
export interface LayerRule {
  readonly imports: readonly string[];
  readonly typesOnly?: readonly string[];
  /** Pure code: bytes in, bytes out, no I/O and no clock. */
  readonly pure?: true;
}

const edge: LayerRule = {
  imports: ['cluster', 'config', 'engine/client', 'engine/messages', 'lib', 'telemetry'],
};

export const layerRules: Readonly<Record<string, LayerRule>> = {
  lib: {imports: []},
  sqlite: {imports: ['lib'], pure: true},
  ltx: {imports: ['lib', 'sqlite'], pure: true},
  log: {imports: ['lib', 'ltx', 'sqlite']},
  fuse: {imports: ['lib']},
  engine: {imports: ['fuse', 'lib', 'log', 'ltx', 'sqlite']},
  verify: {
    imports: [
      'engine/capture/seal',
      'engine/catalog',
      'engine/data-directory',
      'engine/mount/names',
      'lib',
      'log',
      'ltx',
      'sqlite',
    ],
  },
  keeper: {imports: ['fuse', 'lib']},
  lease: {imports: ['lib']},
  cluster: {
    imports: ['engine/client', 'engine/messages', 'lease', 'lib', 'ltx'],
    typesOnly: ['engine/apply-messages', 'engine/compact-worker', 'log'],
  },
  http: edge,
  proxy: edge,
  backup: edge,
  config: {imports: ['lib']},
  telemetry: {imports: ['lib']},
  cli: {imports: ['*']},
};

const impureModules: readonly string[] = [
  'child_process',
  'dgram',
  'fs',
  'http',
  'net',
  'timers',
  'worker_threads',
];

export const codeLinesMax = 400;

export interface Import {
  readonly specifier: string;
  readonly isTypeOnly: boolean;
}

// Import and export declarations end at their specifier, so nothing else can stand between keyword and `from`.
const declaration = /^\s*(import|export)\s+(type\s)?(?:[^'"`;]*?\sfrom\s*)?['"]([^'"]+)['"]/gm;
const call = /\bimport\(\s*['"]([^'"]+)['"]/g;

/** Every module that `source` names in an import, a re-export, an `import()` or a type's `import()`. */
export function listImports(source: string): Import[] {
  const declared = [...source.matchAll(declaration)].map(match => ({
    specifier: match[3],
    isTypeOnly: match[2] !== undefined,
  }));
  const called = [...source.matchAll(call)].map(match => ({specifier: match[1], isTypeOnly: false}));
  return [...declared, ...called];
}

/** What is wrong with the file `path` (relative to `src/`, with slashes): one line for each. */
export function checkFile(path: string, source: string): string[] {
  const lines = countCodeLines(source);
  const tooLong = lines > codeLinesMax ? [`${path}: ${lines} code lines, at most ${codeLinesMax}`] : [];
  const [folder] = path.split('/', 1);
  if (!path.includes('/')) return [...tooLong, `${path}: lies in no layer`];
  if (!Object.hasOwn(layerRules, folder)) return [...tooLong, `${path}: the layer "${folder}" has no rule`];
  const rule = layerRules[folder];
  return [...tooLong, ...listImports(source).flatMap(each => checkImport(path, folder, rule, each))];
}

function checkImport(
  path: string,
  folder: string,
  rule: LayerRule,
  {specifier, isTypeOnly}: Import,
): string[] {
  if (!specifier.startsWith('.')) {
    const [name] = specifier.replace(/^node:/, '').split('/', 1);
    return rule.pure && !isTypeOnly && impureModules.includes(name)
      ? [`${path}: imports ${specifier}, but "${folder}" is pure`]
      : [];
  }
  const target = resolveSpecifier(path, specifier);
  if (target === undefined) return [`${path}: imports ${specifier} from outside src`];
  if (target.startsWith(`${folder}/`) || rule.imports.includes('*')) return [];
  if (rule.imports.some(allowed => matches(target, allowed))) return [];
  const isType = rule.typesOnly?.some(allowed => matches(target, allowed)) ?? false;
  if (isType && isTypeOnly) return [];
  return [`${path}: must not import ${target}${isType ? ' other than as a type' : ''}`];
}

function matches(target: string, allowed: string): boolean {
  return target === `${allowed}.ts` || target.startsWith(`${allowed}/`);
}

/** The target relative to `src/`; none if it leaves it. */
function resolveSpecifier(path: string, specifier: string): string | undefined {
  const parts = path.split('/').slice(0, -1);
  for (const part of specifier.split('/')) {
    if (part === '..' && parts.length === 0) return undefined;
    if (part === '..') parts.pop();
    else if (part !== '.') parts.push(part);
  }
  return parts.join('/');
}

/** Lines that are neither blank nor wholly a comment. */
export function countCodeLines(source: string): number {
  let isInBlock = false;
  let count = 0;
  for (const line of source.split('\n')) {
    const text = line.trim();
    const startsBlock = !isInBlock && text.startsWith('/*');
    const isComment = isInBlock || startsBlock || text.startsWith('//');
    if (!isComment && text !== '') count++;
    if (isInBlock || startsBlock) isInBlock = !text.includes('*/');
  }
  return count;
}
