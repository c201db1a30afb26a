/** Variables by name; a missing one and an empty one are the same. */
export type Environment = Readonly<Record<string, string | undefined>>;

// In order: ${X} and ${A == B}; the malformed "${}" and "${", which vanish; $1 and its like; $NAME.
const reference = /\$(?:\{([^}]+)\}|\{\}?|([*#$@!?0-9-])|(\w+))/g;
const comparison = /^(\w+)\s*(==|!=)\s*(?:'([^']*)'|"([^"]*)"|(\w+))$/;

/**
 * Replaces `$NAME`, `${NAME}`, `${A == 'text'}` and `${A != B}` in the raw text of a configuration file, by the
 * rules of Go's `os.Expand` that LiteFS follows: an unset variable is empty, a `$` before anything else stays,
 * a comparison becomes `true` or `false`, and a bare word on its right is a variable too.
 */
export function expandEnvironment(text: string, env: Environment): string {
  return text.replace(reference, (_match, body?: string, special?: string, name?: string) => {
    if (body !== undefined) return expandBody(body.trim(), env);
    const variable = special ?? name;
    return variable === undefined ? '' : (env[variable] ?? '');
  });
}

function expandBody(body: string, env: Environment): string {
  const parts = comparison.exec(body);
  if (parts === null) return env[body] ?? '';
  const [, left = '', operator, single, double, variable = ''] = parts;
  const right = single ?? double ?? env[variable] ?? '';
  return String(((env[left] ?? '') === right) === (operator === '=='));
}
