import {type ChildProcess, fork} from 'node:child_process';
import {mkdir} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {abortConnection, mountedAt, unmount} from '../src/fuse/mount.ts';
import type {Message} from './jobs.ts';

const PEER = fileURLToPath(new URL('./peer-fuse-native.js', import.meta.url));
const START_MS = 10_000;

/** fuse-native's pass-through, mounted; or why it is left out. */
export class Peer {
  readonly mount: string;
  readonly #child: ChildProcess;

  private constructor(mount: string, child: ChildProcess) {
    this.mount = mount;
    this.#child = child;
  }

  static async start(directory: string, peerDirectory: string): Promise<Peer | {readonly reason: string}> {
    const [backing, mount] = [join(directory, 'files'), join(directory, 'mnt')];
    for (const path of [backing, mount]) await mkdir(path, {recursive: true});
    const child = fork(PEER, [backing, mount, peerDirectory], {stdio: ['ignore', 'ignore', 'ignore', 'ipc']});
    const peer = new Peer(mount, child);
    const first = new Promise<Message>(resolve => {
      child.once('message', resolve);
      child.once('exit', code => resolve({type: 'failed', text: `its process ended with ${code}`}));
    });
    const message = await Promise.race([
      first,
      sleep(START_MS, {type: 'failed', text: 'it did not mount'} as const, {ref: false}),
    ]);
    if (message.type === 'ready') return peer;
    peer.kill();
    return {reason: message.type === 'failed' ? message.text : 'it did not start'};
  }

  kill(): void {
    this.#child.kill('SIGKILL');
    const mounted = mountedAt(this.mount);
    if (mounted === undefined) return;
    abortConnection(mounted.connection);
    unmount(this.mount, true);
  }
}
