import {readFileSync} from 'node:fs';

/** The version in this package's own package.json. */
export function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as {version: string}).version;
}

export function printVersion(): number {
  process.stdout.write(`FerriteFS ${packageVersion()}, Node ${process.version}\n`);
  return 0;
}
