// Makes a fresh clone ready: system packages, then npm's. Plain JavaScript, and nothing but Node's own modules,
// because it runs before anything is installed, the TypeScript compiler included.
import {spawnSync} from 'node:child_process';
import {existsSync, readFileSync} from 'node:fs';

const installed = 'node_modules/.package-lock.json';
const nodeVersionMin = [20, 19];

// The programs that tests and the demo run, and those that compile better-sqlite3 where it has no ready build.
const programs = [
  {name: 'mount', debian: 'mount'},
  {name: 'python3', debian: 'python3'},
  {name: 'sqlite3', debian: 'sqlite3'},
  {name: 'make', debian: 'make'},
  {name: 'g++', debian: 'g++'},
  {name: 'javac', debian: 'default-jdk-headless'},
  {name: 'mvn', debian: 'maven'},
  {name: 'go', debian: 'golang'},
];

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > nodeVersionMin[0] || (major === nodeVersionMin[0] && minor >= nodeVersionMin[1])) return;
  console.error(
    `Cannot run on Node ${process.versions.node}: ${nodeVersionMin.join('.')} or later is needed`,
  );
  process.exit(1);
}

function isOnPath(name) {
  return (process.env.PATH ?? '').split(':').some(directory => existsSync(`${directory}/${name}`));
}

/** Runs a command whose output only matters when it fails: then this process ends with it. */
function run(command, args, environment = {}) {
  const result = spawnSync(command, args, {
    encoding: 'utf8',
    env: {...process.env, ...environment},
    maxBuffer: 1 << 28,
  });
  if (result.status === 0) return;
  console.error(
    `Cannot run "${command} ${args.join(' ')}": ${result.error?.message ?? `exit status ${result.status}`}`,
  );
  console.error(`${result.stdout ?? ''}${result.stderr ?? ''}`);
  process.exit(1);
}

function installSystemPackages() {
  const missing = programs.filter(program => !isOnPath(program.name));
  if (missing.length === 0) return;
  const packages = missing.map(program => program.debian);
  if (process.getuid?.() !== 0 || !isOnPath('apt-get')) {
    console.error(`Missing programs: ${missing.map(program => program.name).join(', ')}`);
    console.error(`Install them first, on Debian with: sudo apt-get install ${packages.join(' ')}`);
    process.exit(1);
  }
  console.log(`Installing ${packages.join(', ')}`);
  run('apt-get', ['update']);
  run('apt-get', ['install', '-y', '--no-install-recommends', ...packages], {
    DEBIAN_FRONTEND: 'noninteractive',
  });
}

/** Whether node_modules holds what package-lock.json asks for. Optional packages of other platforms may lack. */
function hasNpmPackages() {
  if (!existsSync(installed)) return false;
  const wanted = Object.entries(JSON.parse(readFileSync('package-lock.json', 'utf8')).packages);
  const present = JSON.parse(readFileSync(installed, 'utf8')).packages;
  return wanted.every(
    ([path, {version, optional}]) =>
      path === '' || (present[path]?.version ?? (optional && version)) === version,
  );
}

function installNpmPackages() {
  if (hasNpmPackages()) return;
  console.log('Installing npm packages');
  // With NODE_ENV=production npm would leave out the compiler.
  run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund']);
}

/** A native package whose install script did not run (npm can be told so) lies there without its binary. */
function buildNativePackages() {
  if (canLoad('better-sqlite3')) return;
  console.log('Building better-sqlite3');
  run('npm', ['rebuild', 'better-sqlite3', '--ignore-scripts=false', '--foreground-scripts']);
  if (canLoad('better-sqlite3')) return;
  console.error(
    'Cannot load better-sqlite3, though npm says that it was built for this Node; see "npm rebuild better-sqlite3"',
  );
  process.exit(1);
}

/** Asks another process, because opening a database is what loads the binary, and a crash there shall not end us. */
function canLoad(name) {
  return spawnSync(process.execPath, ['-e', `new (require('${name}'))(':memory:')`]).status === 0;
}

function findFuse() {
  if (existsSync('/dev/fuse')) return;
  if (process.getuid?.() === 0) spawnSync('modprobe', ['fuse']);
  if (existsSync('/dev/fuse')) return;
  console.error(
    'There is no /dev/fuse, so whatever mounts a directory will fail: run "modprobe fuse" as root, in a container pass --device /dev/fuse',
  );
}

checkNode();
installSystemPackages();
installNpmPackages();
buildNativePackages();
findFuse();
