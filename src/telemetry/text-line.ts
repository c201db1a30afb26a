/**
 * Turns a line of JSON into `time=... level=INFO msg="..." key=value`, newline included. Nothing that a field
 * holds can end the line or forge another key.
 */
export function formatTextLine(json: string): string {
  const {time, level, msg, ...fields} = JSON.parse(json) as Record<string, unknown>;
  const pairs = [['time', time], ['level', level], ['msg', msg], ...Object.entries(fields)] as const;
  const shown = pairs.filter(([, value]) => value !== undefined);
  return `${shown.map(([key, value]) => `${quoteUnlessPlain(key)}=${formatValue(key, value)}`).join(' ')}\n`;
}

function formatValue(key: string, value: unknown): string {
  if (key === 'msg') return quote(String(value));
  if (typeof value === 'string') return quoteUnlessPlain(value);
  // Numbers, booleans and null need no quotes; lists and maps hold quotes and blanks, and so get them.
  return quoteUnlessPlain(JSON.stringify(value));
}

function quoteUnlessPlain(text: string): string {
  return /^[\x21\x23-\x3c\x3e-\x7e\u00a1-\u1fff\u3040-\ud7ff]+$/.test(text) ? text : quote(text);
}

/** Quotes, escaping what JSON leaves as it is and a terminal or a reader of lines would act upon. */
function quote(text: string): string {
  const toEscape = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(text).replace(/[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, toEscape);
}
