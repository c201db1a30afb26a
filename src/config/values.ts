import {parseDurationNs} from './duration.ts';

/** What is wrong with a value, and what to write instead. */
export interface Problem {
  readonly problem: string;
  readonly remedy: string;
}

export type Parsed<T> = {readonly value: T} | Problem;

/** An address to listen on. `host` is absent for "every address of this machine"; port 0 lets the kernel choose. */
export interface ListenAddress {
  readonly host: string | undefined;
  readonly port: number;
}

// YAML 1.1 knew all of these, Go's parser still takes them, and so files in use hold them.
const booleans: ReadonlyMap<string, boolean> = new Map([
  ...['true', 'yes', 'on', 'y'].map(word => [word, true] as const),
  ...['false', 'no', 'off', 'n'].map(word => [word, false] as const),
]);

export function parseBoolean(text: string): Parsed<boolean> {
  const value = booleans.get(text.toLowerCase());
  return value === undefined ? {problem: 'not a boolean', remedy: 'write true or false'} : {value};
}

export function parseText(text: string): Parsed<string> {
  if (text.trim() === '') return {problem: 'empty', remedy: 'write a value or remove the key'};
  if (text.includes('\0')) return {problem: 'holds a NUL character', remedy: 'remove it'};
  return {value: text};
}

/** A parser that takes exactly `words`. */
export function parseOneOf<T extends string>(...words: readonly T[]): (text: string) => Parsed<T> {
  return text => {
    const value = words.find(word => word === text);
    return value === undefined
      ? {problem: 'not a known choice', remedy: `write ${words.join(' or ')}`}
      : {value};
  };
}

export function parseDurationMs(text: string): Parsed<number> {
  return parseDuration(text, 1e6);
}

export function parseDurationUs(text: string): Parsed<number> {
  return parseDuration(text, 1e3);
}

function parseDuration(text: string, nsPerUnit: number): Parsed<number> {
  if (/^[+-]?\d+(\.\d+)?$/.test(text))
    return {problem: 'a duration without a unit', remedy: `write ${text}s or another unit`};
  const ns = parseDurationNs(text);
  if (ns === undefined) return {problem: 'not a duration', remedy: 'write for example 10s, 1m30s or 500ms'};
  if (ns < 0) return {problem: 'a negative duration', remedy: 'write 0s or more'};
  return {value: ns / nsPerUnit};
}

const byteUnits: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['b', 1],
  ...['k', 'm', 'g', 't'].flatMap((unit, index) => [
    [`${unit}b`, 1000 ** (index + 1)] as const,
    [`${unit}ib`, 1024 ** (index + 1)] as const,
  ]),
]);

/** `512MiB`, `1.5GB`, `1048576`: a size in bytes, rounded down. Units are decimal (`MB`) or binary (`MiB`). */
export function parseBytes(text: string): Parsed<number> {
  const parts = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text);
  const factor = byteUnits.get((parts?.[2] ?? '').toLowerCase());
  if (parts === null || factor === undefined)
    return {problem: 'not a size', remedy: 'write for example 512MiB or 10GB'};
  const value = Math.floor(Number(parts[1]) * factor);
  if (!Number.isSafeInteger(value)) return {problem: 'too large a size', remedy: 'write at most 8000TB'};
  return value === 0
    ? {problem: 'a size of nothing', remedy: 'write at least 1B or remove the key'}
    : {value};
}

/** `host:port`, `:port` or `[v6]:port`. */
export function parseListenAddress(text: string): Parsed<ListenAddress> {
  const parts = /^(?:\[([0-9a-f:.%\w]+)\]|([^\s:[\]/]*)):(\d{1,5})$/i.exec(text);
  const port = Number(parts?.[3] ?? Number.NaN);
  if (parts === null || !(port <= 65_535))
    return {problem: 'not an address to listen on', remedy: 'write host:port or :port'};
  const host = parts[1] ?? parts[2];
  return {value: {host: host === '' ? undefined : host, port}};
}

/** An `http://` or `https://` URL, without credentials, query or fragment; a trailing slash is dropped. */
export function parseHttpUrl(text: string): Parsed<string> {
  const remedy = 'write for example http://10.0.0.1:20202';
  if (!URL.canParse(text)) return {problem: 'not a URL', remedy};
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    return {problem: 'not an http or https URL', remedy};
  if (url.username !== '' || url.password !== '') return {problem: 'a URL that holds credentials', remedy};
  if (url.search !== '' || url.hash !== '') return {problem: 'a URL with a query or fragment', remedy};
  return {value: url.href.replace(/\/$/, '')};
}

/** An offset that SQLite can use for its PENDING lock byte, in decimal or with 0x. */
export function parsePendingByte(text: string): Parsed<number> {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
  const isPowerOfTwo = Number.isSafeInteger(Math.log2(value));
  if (isPowerOfTwo && value >= 65_536 && value <= 0x40000000) return {value};
  return {problem: 'not a usable lock byte', remedy: 'write a power of two from 65536 to 0x40000000'};
}
