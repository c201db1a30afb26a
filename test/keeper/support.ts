import {spawn} from 'node:child_process';
import {existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {mountedAt, unmount} from '../../src/fuse/mount.ts';

const MAIN =
  process.env.FERRITE_TEST_MAIN ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const LIMIT_MS = 30_000;

export interface MountEnd {
  /** Null where it did not end by itself and was killed. */
  readonly code: number | null;
  readonly errors: string;
}

/** A folder for configurations with which `ferrite mount` is not going to come up. */
export class Attempt {
  readonly directory = mkdtempSync(join(tmpdir(), 'ferrite-keeper-'));
  readonly mount = join(this.directory, 'mnt');
  readonly data = join(this.directory, 'data');
  readonly configPath = join(this.directory, 'ferrite.yml');

  constructor() {
    mkdirSync(this.mount);
  }

  /** A configuration that would work, but for the values given here by section and key. */
  config(set: Readonly<Record<string, string>> = {}): string {
    const values: Record<string, string> = {
      'fuse.dir': this.mount,
      'data.dir': this.data,
      'http.addr': '"127.0.0.1:0"',
      'lease.type': 'static',
      ...set,
    };
    const sections = ['fuse', 'data', 'http', 'lease'].map(section => {
      const keys = Object.entries(values).filter(([key]) => key.startsWith(`${section}.`));
      return `${section}:\n${keys.map(([key, value]) => `  ${key.slice(section.length + 1)}: ${value}\n`).join('')}`;
    });
    return sections.join('');
  }

  /** Runs `ferrite mount` until it ends. */
  async run(config: string | undefined, configPath = this.configPath): Promise<MountEnd> {
    if (config !== undefined) writeFileSync(configPath, config);
    const child = spawn(process.execPath, [MAIN, 'mount', '-config', configPath], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let errors = '';
    child.stderr.on('data', bytes => {
      errors += String(bytes);
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    const code = await new Promise<number | null>(resolve => child.once('close', resolve));
    clearTimeout(timer);
    return {code, errors: errors.trim()};
  }

  destroy(): void {
    while (mountedAt(this.mount) !== undefined) unmount(this.mount, true);
    rmSync(this.directory, {recursive: true, force: true});
  }
}

/** Whether a process is there and has not ended. */
export function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
}
