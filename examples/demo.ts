import {spawnSync} from 'node:child_process';
import {once} from 'node:events';
import {existsSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {DATABASE, Demonstration} from './demo/demonstration.ts';
import {DemoError} from './demo/wait.ts';

// Run by `npm run demo`, which sets up and builds first. Compiled, it lies in build-tools/examples.

const LOG_LINES = 25;
const FOLLOWERS_MAX = 8;
const SECONDS_MAX = 3600;
const usage = `usage: npm run demo -- [--once] [--followers=N] [--seconds=N]
  --once         end after the main job: exit code 0 if all nodes were equal, else 1
  --followers=N  how many followers (2)
  --seconds=N    how long the programs write and read (10)`;

interface Arguments {
  readonly once: boolean;
  readonly followerCount: number;
  readonly seconds: number;
}

function readArguments(): Arguments | undefined {
  try {
    const options = {
      once: {type: 'boolean'},
      followers: {type: 'string'},
      seconds: {type: 'string'},
    } as const;
    const {values} = parseArgs({options});
    const followerCount = Number(values.followers ?? 2);
    const seconds = Number(values.seconds ?? 10);
    const isCount = (count: number, max: number) => Number.isInteger(count) && count >= 0 && count <= max;
    if (!isCount(followerCount, FOLLOWERS_MAX) || !isCount(seconds, SECONDS_MAX)) return undefined;
    return {once: values.once ?? false, followerCount, seconds};
  } catch {
    return undefined; // parseArgs refused something.
  }
}

/** What the machine lacks, in the words of who can mend it; undefined if nothing. */
function findObstacle(runtime: string): string | undefined {
  if (process.getuid?.() !== 0) {
    return 'Cannot mount: that needs root; run "sudo npm run demo", or in a namespace of your own "unshare -Urm npm run demo"';
  }
  if (!existsSync('/dev/fuse'))
    return 'Cannot mount: there is no /dev/fuse; run "modprobe fuse", in a container pass --device /dev/fuse';
  if (spawnSync(runtime, ['--version']).status !== 0)
    return `Cannot run the Node that FERRITE_NODE names: "${runtime}"`;
  return undefined;
}

function tellWhatToTry({nodes, primary, followers, sites, directory}: Demonstration): string {
  const [firstSite, secondSite] = sites;
  const follower = followers[0] ?? primary;
  return `
Now it is yours. The nodes and the web apps stay up until Ctrl-C; from another shell:

  sqlite3 ${primary.path(DATABASE)} "INSERT INTO visit (city, visitor) VALUES (1, 'me')"
  sqlite3 ${follower.path(DATABASE)} "SELECT * FROM visit ORDER BY id DESC LIMIT 1"
  sqlite3 ${follower.path(DATABASE)} "DELETE FROM visit"      # a follower takes no writes: busy
  python3 -c "import sqlite3; print(sqlite3.connect('${follower.path(DATABASE)}').execute('SELECT count(*) FROM city').fetchone())"
  sqlite3 ${primary.path('new.db')} "CREATE TABLE t (x); INSERT INTO t VALUES (1)"; ls ${follower.mount}
  curl -s -d "city=1&visitor=me" ${firstSite?.url}/visits; curl -s ${secondSite?.url ?? firstSite?.url}/visits
  cat ${follower.path('.primary')} ${follower.path('.lag')} ${nodes.map(node => node.path(`${DATABASE}-pos`)).join(' ')}
  kill -9 $(cat ${directory}/primary/data/daemon.pid)      # the mount outlives the daemon; applications only wait

  web apps: ${sites.map(({node, url}) => `${node.name} ${url}`).join('  ')}
  logs, configs, data: ${directory}
`;
}

function describeFailure(error: unknown, demonstration: Demonstration | undefined): string {
  const text =
    error instanceof DemoError ? error.message : error instanceof Error ? error.stack : String(error);
  const started = demonstration?.nodes.filter(node => node.logTail(1) !== '');
  const logs = started?.map(node => `\n--- end of the log of ${node.name}\n${node.logTail(LOG_LINES)}`);
  return `\n${text}\n${(logs ?? []).join('\n')}\n\n`;
}

async function main({once: isOnce, followerCount, seconds}: Arguments): Promise<number> {
  const stop = new AbortController();
  const interrupt = () => stop.abort(new DemoError('DEMO_INTERRUPTED', 'Interrupted'));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  process.stdout.on('error', interrupt); // Whoever read it is gone.
  process.stderr.on('error', interrupt);
  const print = (line: string) => process.stdout.write(`${line}\n`);
  const runtime = process.env.FERRITE_NODE ?? process.execPath;
  const root = fileURLToPath(new URL('../../', import.meta.url));
  let demonstration: Demonstration | undefined;
  let isDone = false;
  let isInterrupted = false;
  let exitCode = 0;
  try {
    demonstration = await Demonstration.prepare({root, runtime, followerCount, seconds, stop, print});
    print(
      `Daemons run on Node ${spawnSync(runtime, ['--version'], {encoding: 'utf8'}).stdout.trim()} (${runtime})`,
    );
    await demonstration.run();
    isDone = true;
    if (!isOnce) {
      print(tellWhatToTry(demonstration));
      const keepAlive = setInterval(() => undefined, 1 << 30);
      if (!stop.signal.aborted) await once(stop.signal, 'abort');
      clearInterval(keepAlive);
      throw stop.signal.reason;
    }
  } catch (caught) {
    // What stopped everything says more than the wait that noticed it.
    const error: unknown = stop.signal.aborted ? stop.signal.reason : caught;
    isInterrupted = error instanceof DemoError && error.code === 'DEMO_INTERRUPTED';
    if (!isInterrupted) process.stderr.write(describeFailure(error, demonstration));
    exitCode = isInterrupted && isDone ? 0 : 1;
  }
  print('Stopping the applications, then the nodes');
  await demonstration?.cleanUp();
  print(exitCode === 0 ? 'Done' : isInterrupted ? 'Interrupted' : 'Failed');
  return exitCode;
}

const args = readArguments();
const obstacle = findObstacle(process.env.FERRITE_NODE ?? process.execPath);
if (args === undefined) {
  console.error(usage);
  process.exit(2);
} else if (obstacle !== undefined) {
  console.error(obstacle);
  process.exit(1);
} else {
  process.exit(await main(args));
}
