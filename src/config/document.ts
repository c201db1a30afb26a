import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseAllDocuments,
  type YAMLMap,
} from 'yaml';
import type {Finding} from './error.ts';

/** What the file says at one key. `text` is the value as written; absent for null and for lists. */
export interface Setting {
  readonly key: string;
  readonly kind: 'scalar' | 'null' | 'list';
  readonly text?: string;
  readonly line: number;
}

export interface SettingsDocument {
  readonly settings: readonly Setting[];
  readonly findings: readonly Finding[];
}

const settingsMax = 1000;
const depthMax = 5;

/**
 * Reads YAML as a flat list of settings with dotted keys. Values stay text, since only the option knows whether
 * `no` is a boolean or a host's name. Aliases and merge keys (`<<`) are followed. Never throws on bad input.
 */
export function readSettings(text: string): SettingsDocument {
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, {lineCounter: lines, logLevel: 'silent', schema: 'core'});
  if (!Array.isArray(documents) || documents.length === 0)
    return failed('empty', 'write at least lease.type');
  if (documents.length > 1) return failed('more than one YAML document', 'keep only the first');
  const [document] = documents;
  if (document.errors.length > 0) {
    const findings = document.errors.map(error => ({
      key: '',
      line: error.linePos?.[0].line ?? 1,
      problem: `not YAML: ${error.message.split('\n')[0].replace(/ at line \d+.*$/, '')}`,
      remedy: 'correct it',
    }));
    return {settings: [], findings};
  }
  return new SettingsWalk(document, lines).run();
}

function failed(problem: string, remedy: string): SettingsDocument {
  return {settings: [], findings: [{key: '', problem, remedy}]};
}

class SettingsWalk {
  readonly #document: Document;
  readonly #lines: LineCounter;
  readonly #settings = new Map<string, Setting>();
  readonly #findings: Finding[] = [];

  constructor(document: Document, lines: LineCounter) {
    this.#document = document;
    this.#lines = lines;
  }

  run(): SettingsDocument {
    const root = this.#resolve(this.#document.contents);
    if (isMap(root)) this.#walkMap(root, '', 0);
    else if (root === null || (isScalar(root) && root.value === null))
      return failed('empty', 'write at least lease.type');
    else return failed('not a map of keys', 'write keys with values');
    return {settings: [...this.#settings.values()], findings: this.#findings};
  }

  #walkMap(map: YAMLMap, prefix: string, depth: number): void {
    if (depth > depthMax) {
      this.#report(prefix, map, 'nested too deep', 'remove a level');
      return;
    }
    // Merged keys come last, so that what the map itself says wins.
    const [merges, pairs] = [map.items.filter(isMergePair), map.items.filter(pair => !isMergePair(pair))];
    for (const pair of pairs) this.#walkPair(pair as Pair<Node, Node | null>, prefix, depth);
    for (const pair of merges) this.#walkMerge(this.#resolve(pair.value), prefix, depth);
  }

  #walkMerge(source: Node | null, prefix: string, depth: number): void {
    const parts = isSeq(source) ? source.items.map(item => this.#resolve(item)) : [source];
    for (const part of parts) {
      if (isMap(part)) this.#walkMap(part, prefix, depth + 1);
      else
        this.#report(`${prefix}<<`, source, 'merges something that is not a map', 'name an anchor of a map');
    }
  }

  #walkPair(pair: Pair<Node, Node | null>, prefix: string, depth: number): void {
    const name = isScalar(pair.key) ? scalarText(pair.key) : String(pair.key);
    const key = `${prefix}${name}`;
    const value = this.#resolve(pair.value);
    const line = this.#line(pair.key);
    if (isMap(value)) this.#walkMap(value, `${key}.`, depth + 1);
    else if (this.#settings.has(key)) return;
    else if (this.#settings.size >= settingsMax)
      this.#report(key, pair.key, `more than ${settingsMax} settings`, 'remove some');
    else if (isSeq(value)) this.#settings.set(key, {key, kind: 'list', line});
    else if (isScalar(value) && value.value !== null)
      this.#settings.set(key, {key, kind: 'scalar', text: scalarText(value), line});
    else this.#settings.set(key, {key, kind: 'null', line});
  }

  #resolve(node: unknown): Node | null {
    if (isAlias(node)) return node.resolve(this.#document) ?? null;
    return isMap(node) || isSeq(node) || isScalar(node) ? node : null;
  }

  #line(node: Node | null): number {
    return this.#lines.linePos(node?.range?.[0] ?? 0).line;
  }

  #report(key: string, node: Node | null, problem: string, remedy: string): void {
    this.#findings.push({key: key.replace(/\.$/, ''), line: this.#line(node), problem, remedy});
  }
}

function isMergePair(pair: Pair<unknown, unknown>): boolean {
  return isScalar(pair.key) && pair.key.value === '<<' && pair.key.type === 'PLAIN';
}

/** A plain scalar as it was written (`010`, `1e3`), any other as what its quotes or block mean. */
function scalarText(scalar: {
  readonly value: unknown;
  readonly source?: string;
  readonly type?: string;
}): string {
  return scalar.type === 'PLAIN' ? (scalar.source ?? '') : String(scalar.value);
}
