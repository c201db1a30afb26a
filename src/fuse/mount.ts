import {spawnSync} from 'node:child_process';
import {constants, existsSync, mkdirSync, openSync, readFileSync, writeFileSync} from 'node:fs';

export type MountErrorCode = 'MOUNT_NO_DEVICE' | 'MOUNT_NO_PERMISSION' | 'MOUNT_FAILED' | 'MOUNT_BUSY';

/** Why the folder could not be mounted or unmounted; the message says what the operator can do. */
export class MountError extends Error {
  override readonly name = 'MountError';
  readonly code: MountErrorCode;

  constructor(code: MountErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export interface MountedAt {
  readonly type: string;
  readonly source: string;
  /** Minor device number: the connection's name under /sys/fs/fuse/connections. */
  readonly connection: number;
}

const FUSE_CONNECTIONS = '/sys/fs/fuse/connections';

/** Opens /dev/fuse without blocking reads, so that `poll` decides when to read. */
export function openFuseDevice(): number {
  try {
    return openSync('/dev/fuse', constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    const {code} = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO') {
      throw new MountError(
        'MOUNT_NO_DEVICE',
        'Cannot open /dev/fuse: it does not exist; load the kernel module "fuse", in a container pass --device /dev/fuse',
        {cause},
      );
    }
    throw new MountError(
      'MOUNT_NO_PERMISSION',
      `Cannot open /dev/fuse: ${code}; run as root, in a container pass --device /dev/fuse --cap-add SYS_ADMIN`,
      {cause},
    );
  }
}

/** The uppermost mount at exactly `directory`, from /proc/self/mountinfo: the mount itself is never touched, since it may hang. */
export function mountedAt(directory: string): MountedAt | undefined {
  let found: MountedAt | undefined;
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-');
    if (dash < 0 || unescapeMountPath(fields[4] ?? '') !== directory) continue;
    found = {
      type: fields[dash + 1] ?? '',
      source: fields[dash + 2] ?? '',
      connection: Number((fields[2] ?? '').split(':')[1]),
    };
  }
  return found;
}

/** Whether `path` is in a FUSE mount or is one. Such a path must not be touched before it is known that somebody answers. */
export function isBelowFuse(path: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => line.split(' '))
    .filter(fields => /^fuse(?:$|\.|blk$)/.test(fields[fields.indexOf('-') + 1] ?? ''))
    .some(fields => `${path}/`.startsWith(`${unescapeMountPath(fields[4] ?? '')}/`));
}

/** Octal escapes of proc(5): `\040` is a space. */
function unescapeMountPath(text: string): string {
  const bytes = Buffer.from(text, 'utf8')
    .toString('latin1')
    .replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** Mounts the connection `fuseFd` at `directory` (created if missing). `name` is what df(1) and mount(8) show. */
export function mount(fuseFd: number, directory: string, name: string, allowOther: boolean): void {
  mkdirSync(directory, {recursive: true});
  const identity = `user_id=${process.getuid?.() ?? 0},group_id=${process.getgid?.() ?? 0}`;
  const options = `fd=3,rootmode=40000,${identity},default_permissions${allowOther ? ',allow_other' : ''}`;
  const {status, error, stderr} = spawnSync('mount', ['-i', '-t', 'fuse', name, directory, '-o', options], {
    stdio: ['ignore', 'ignore', 'pipe', fuseFd],
    encoding: 'utf8',
    timeout: 10_000,
  });
  if (status === 0) return;
  if (error !== undefined)
    throw new MountError('MOUNT_FAILED', `Cannot mount "${directory}": ${error.message}`, {cause: error});
  const isForbidden = status === 1 && process.getuid?.() !== 0; // mount(8): 1 is wrong use or missing permission
  throw new MountError(
    isForbidden ? 'MOUNT_NO_PERMISSION' : 'MOUNT_FAILED',
    `Cannot mount "${directory}": ${stderr.trim()}${isForbidden ? '; run as root (CAP_SYS_ADMIN)' : ''}`,
  );
}

/** Unmounts `directory`. `lazy` detaches it even while it is in use; otherwise MOUNT_BUSY is thrown. */
export function unmount(directory: string, lazy: boolean): void {
  const {status, stderr} = spawnSync('umount', [...(lazy ? ['-l'] : []), directory], {
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
    timeout: 10_000,
  });
  if (status === 0 || mountedAt(directory) === undefined) return;
  throw new MountError('MOUNT_BUSY', `Cannot unmount "${directory}": ${(stderr ?? '').trim()}`);
}

/** Aborts the connection: every waiting request fails with ECONNABORTED, nothing hangs. Returns whether the kernel's switch was there. */
export function abortConnection(connection: number): boolean {
  if (!existsSync(`${FUSE_CONNECTIONS}/${connection}/abort`)) {
    spawnSync('mount', ['-t', 'fusectl', 'none', FUSE_CONNECTIONS], {stdio: 'ignore', timeout: 5000});
  }
  try {
    writeFileSync(`${FUSE_CONNECTIONS}/${connection}/abort`, '1');
    return true;
  } catch {
    return false; // Gone already, or no fusectl here: an unmount by force is what is left.
  }
}

/** Requests that wait for an answer, or undefined where fusectl isn't mounted. */
export function waitingRequests(connection: number): number | undefined {
  try {
    return Number(readFileSync(`${FUSE_CONNECTIONS}/${connection}/waiting`, 'utf8'));
  } catch {
    return undefined;
  }
}

/** Whether the connection with this number is mounted anywhere that this process can see. */
export function isMounted(connection: number): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some(line => line.split(' ')[2] === `0:${connection}`);
}
