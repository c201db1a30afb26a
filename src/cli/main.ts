#!/usr/bin/env node
import {readFileSync, realpathSync} from 'node:fs';
import {homedir} from 'node:os';
import {loadConfig} from '../config/load.ts';
import type {Config} from '../config/options.ts';
import {describeExit} from './exit.ts';
import {type ConfigSource, parseCommandLine} from './usage.ts';

/** Reads the config file as every command that needs one does. Behind a mount that nobody serves yet, `realpath` would wait for ever. */
function readConfig(
  {path, expandEnv}: ConfigSource,
  realpath: (path: string) => string = realpathSync,
): Config {
  return loadConfig({
    ...(path === undefined ? {} : {path}),
    env: process.env,
    cwd: process.cwd(),
    home: homedir(),
    expandEnv,
    readFile: file => readFileSync(file, 'utf8'),
    realpath,
  });
}

/** Each command's code is loaded only when it runs. Returns the exit code. */
async function run(argv: readonly string[]): Promise<number> {
  if (argv[0] === 'daemon') {
    const {runDaemon} = await import('./daemon.ts');
    return await runDaemon(argv.slice(1), source => readConfig(source, path => path));
  }
  const invocation = parseCommandLine(argv);
  switch (invocation.command) {
    case 'help':
      process.stdout.write(invocation.text);
      return invocation.exitCode;
    case 'version': {
      const {printVersion} = await import('./version.ts');
      return printVersion();
    }
    case 'mount': {
      const {runMount} = await import('./mount.ts');
      const {isBelowFuse} = await import('../fuse/mount.ts');
      const realpath = (path: string) => (isBelowFuse(path) ? path : realpathSync(path));
      return await runMount(readConfig(invocation.config, realpath), invocation);
    }
    case 'reload': {
      const {runReload} = await import('./reload.ts');
      return await runReload(readConfig(invocation.config, path => path));
    }
    case 'verify': {
      const {runVerify} = await import('./verify.ts');
      return await runVerify(invocation.directory);
    }
  }
}

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  const {code, text} = describeExit(error);
  process.stderr.write(`${text}\n`);
  process.exitCode = code;
}
process.exit();
