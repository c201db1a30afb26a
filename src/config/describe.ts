import {type Option, optionList} from './options.ts';

/** The documentation of every option, made from the table. */
export interface OptionsDescription {
  /** A table for the README. */
  readonly markdown: string;
  /** A sample file in which every default is commented out. */
  readonly yaml: string;
}

export function describeOptions(): OptionsDescription {
  const documented = optionList.map(([, option]) => option).filter(option => !option.hidden);
  return {markdown: describeAsMarkdown(documented), yaml: describeAsYaml(documented)};
}

function describeAsMarkdown(documented: readonly Option<unknown>[]): string {
  const rows = documented.map(({key, type, fallback, doc}) => {
    return `| \`${key}\` | ${type} | ${fallback === null ? '' : `\`${fallback}\``} | ${doc} |`;
  });
  return ['| Key | Value | Default | Meaning |', '|---|---|---|---|', ...rows, ''].join('\n');
}

/** Examples for the options that have no default to show. */
const samples: Readonly<Record<string, string>> = {
  'data.retention-size': '512MiB',
  'lease.type': 'static',
  'lease.hostname': 'node-1',
  'lease.advertise-url': 'http://node-1:20202',
};

function describeAsYaml(documented: readonly Option<unknown>[]): string {
  const lines = [
    '# Every setting of FerriteFS. What is commented out shows the default, or an example where there is none.',
  ];
  let section = '';
  for (const option of documented) {
    const [head, name] = splitKey(option.key);
    // A section whose keys are all commented out is null, which leaves every default as it is.
    if (head !== section && head !== '') lines.push('', `${head}:`);
    else lines.push('');
    section = head;
    lines.push(...describeSetting(option, head === '' ? '' : '  ', name));
  }
  return `${lines.join('\n')}\n`;
}

function describeSetting(option: Option<unknown>, indent: string, name: string): string[] {
  const value = quoteForYaml(option.fallback ?? samples[option.key] ?? '');
  return [...wrap(option.doc, `${indent}# `), `${indent}${option.required ? '' : '# '}${name}: ${value}`];
}

function splitKey(key: string): [section: string, name: string] {
  const dot = key.indexOf('.');
  return dot < 0 ? ['', key] : [key.slice(0, dot), key.slice(dot + 1)];
}

function quoteForYaml(text: string): string {
  return /^[\w./][\w./-]*$/.test(text) || text.startsWith('http') ? text : `"${text}"`;
}

const columnMax = 100;

function wrap(text: string, prefix: string): string[] {
  const lines: string[] = [];
  let line = prefix;
  for (const word of text.replaceAll('`', '').split(' ')) {
    const isFirst = line === prefix;
    if (!isFirst && line.length + 1 + word.length > columnMax) {
      lines.push(line);
      line = prefix + word;
    } else {
      line += isFirst ? word : ` ${word}`;
    }
  }
  return [...lines, line];
}
