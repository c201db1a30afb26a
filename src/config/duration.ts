const unitNs: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  // The micro sign and the Greek letter look the same; keyboards make either.
  '\u00b5s': 1e3,
  '\u03bcs': 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};
const whole = /^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+$/;
const part = /(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/g;
const durationNsMax = 2 ** 63;

/** Reads a Go duration (`1m30s`, `1.5h`, `30us`) as nanoseconds; `undefined` if it is none or beyond Go's 290 years. */
export function parseDurationNs(text: string): number | undefined {
  if (!whole.test(text)) return undefined;
  let ns = 0;
  for (const [, amount, unit = ''] of text.matchAll(part))
    ns += Number(amount) * (unitNs[unit] ?? Number.NaN);
  if (!(ns < durationNsMax)) return undefined;
  return text.startsWith('-') ? -ns : ns;
}
