import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, expect, test} from 'vitest';
import {ConfigError} from '../../src/config/error.ts';
import {suggestKey} from '../../src/config/known-keys.ts';
import {type LoadOptions, loadConfig} from '../../src/config/load.ts';

let root: string;

beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'ferrite-config-')));
  for (const name of ['cwd', 'home']) mkdirSync(join(root, name));
});

afterEach(() => {
  rmSync(root, {recursive: true});
});

function load(overrides: Partial<LoadOptions> = {}) {
  return loadConfig({
    env: {},
    cwd: join(root, 'cwd'),
    home: join(root, 'home'),
    expandEnv: true,
    // The machine's own /etc must not decide a test.
    readFile: path => readFileSync(path.startsWith('/etc/') ? join(root, 'etc', path) : path, 'utf8'),
    realpath: realpathSync,
    ...overrides,
  });
}

function loadText(text: string, overrides: Partial<LoadOptions> = {}) {
  const path = join(root, 'given.yml');
  writeFileSync(path, text);
  return load({path, ...overrides});
}

function failure(action: () => unknown): ConfigError {
  try {
    action();
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('Cannot return the error: none was thrown');
}

function findingsOf(text: string): string[] {
  return failure(() => loadText(text)).findings.map(
    ({key, line, problem, remedy}) => `${key}:${line ?? ''} ${problem}; ${remedy}`,
  );
}

test('loadConfig() fills in every default', () => {
  expect(loadText('lease: {type: static}')).toEqual({
    path: join(root, 'given.yml'),
    fuseDir: '/ferrite',
    fuseAllowOther: false,
    fuseFollowerWrites: 'busy',
    fuseSpinUs: 30,
    fuseKeepAwake: true,
    dataDir: '/var/lib/ferrite',
    dataCompress: true,
    dataRetentionMs: 600_000,
    dataRetentionMonitorIntervalMs: 60_000,
    dataRetentionBytesMax: undefined,
    httpAddr: {host: undefined, port: 20_202},
    leaseType: 'static',
    leaseHostname: undefined,
    leaseAdvertiseUrl: undefined,
    leaseCandidate: true,
    leaseReconnectDelayMs: 1000,
    logFormat: 'text',
    logTimestamp: false,
    logDebug: false,
    skipSync: false,
    exitOnError: true,
    debugPendingByte: 0x40000000,
  });
});

test('loadConfig() reads every key', () => {
  const config = loadText(`
fuse: {dir: mnt, allow-other: yes, follower-writes: readonly, spin: 0s}
data: {dir: ./data, compress: off, retention: 1h, retention-monitor-interval: 5s, retention-size: 1GiB}
http: {addr: "127.0.0.1:1"}
lease: {type: static, hostname: 007, advertise-url: "http://a:1/", candidate: no, reconnect-delay: 250ms}
log: {format: json, timestamp: true, debug: on}
skip-sync: true
exit-on-error: false
debug: {pending-byte: 0x10000}
`);
  expect(config).toMatchObject({
    fuseDir: join(root, 'cwd/mnt'),
    fuseAllowOther: true,
    fuseFollowerWrites: 'readonly',
    fuseSpinUs: 0,
    dataDir: join(root, 'cwd/data'),
    dataCompress: false,
    dataRetentionMs: 3_600_000,
    dataRetentionBytesMax: 1024 ** 3,
    httpAddr: {host: '127.0.0.1', port: 1},
    leaseHostname: '007',
    leaseAdvertiseUrl: 'http://a:1',
    leaseCandidate: false,
    leaseReconnectDelayMs: 250,
    logFormat: 'json',
    logDebug: true,
    skipSync: true,
    exitOnError: false,
    debugPendingByte: 65_536,
  });
});

test('loadConfig() takes a text that looks like a boolean for what the option is', () => {
  expect(loadText('lease: {type: static, hostname: no}').leaseHostname).toBe('no');
});

test('loadConfig() leaves a default where a value is null or an empty expansion', () => {
  const config = loadText('lease:\n  type: static\n  candidate: ${UNSET}\n  hostname: ""\nfuse:\ndata: ~\n');
  expect(config).toMatchObject({leaseCandidate: true, leaseHostname: undefined, fuseDir: '/ferrite'});
});

test('loadConfig() follows anchors and merge keys, and what a map says itself wins', () => {
  const config = loadText('log: &a {format: json, debug: true}\nlease: {type: static}\n');
  expect(config).toMatchObject({logFormat: 'json', logDebug: true});
  const merged = loadText(
    'lease: {type: static}\nlog:\n  <<: &b {format: json, debug: true}\n  debug: false\n',
  );
  expect(merged).toMatchObject({logFormat: 'json', logDebug: false});
  expect(loadText('http: {addr: &h ":1"}\nlease: {type: static, hostname: *h}').leaseHostname).toBe(':1');
});

test('loadConfig() expands the environment, unless told not to', () => {
  const text =
    "lease: {type: static, hostname: '${HOSTNAME}', candidate: \"${REGION == 'a'}\", advertise-url: http://p:1}";
  expect(loadText(text, {env: {HOSTNAME: 'n1', REGION: 'b'}})).toMatchObject({
    leaseHostname: 'n1',
    leaseCandidate: false,
  });
  expect(
    loadText("lease: {type: static, hostname: '$HOSTNAME'}", {env: {HOSTNAME: 'n1'}, expandEnv: false})
      .leaseHostname,
  ).toBe('$HOSTNAME');
});

test('loadConfig() searches our name in every place before the one of LiteFS', () => {
  const lease = (hostname: string) => `lease: {type: static, hostname: ${hostname}}`;
  const places = [
    'cwd/ferrite.yml',
    'home/ferrite.yml',
    'etc/etc/ferrite.yml',
    'cwd/litefs.yml',
    'home/litefs.yml',
    'etc/etc/litefs.yml',
  ];
  mkdirSync(join(root, 'etc/etc'), {recursive: true});
  places.forEach((place, index) => {
    writeFileSync(join(root, place), lease(`h${index}`));
  });
  for (const [index, place] of places.entries()) {
    expect(load().leaseHostname).toBe(`h${index}`);
    rmSync(join(root, place));
  }
  const error = failure(load);
  expect(error.code).toBe('CONFIG_NOT_FOUND');
  expect(error.message).toContain('/etc/litefs.yml');
});

test('loadConfig() does not search on when a file is there and cannot be read', () => {
  mkdirSync(join(root, 'cwd/ferrite.yml'));
  writeFileSync(join(root, 'home/ferrite.yml'), 'lease: {type: static}');
  expect(failure(load).code).toBe('CONFIG_UNREADABLE');
});

test('loadConfig() reports everything at once, in the order of the file', () => {
  const text = `lease:
  type: raft
  candidat: true
data:
  retention: 10
proxy:
  addr: ":8080"
  target: "localhost:1"
fuse: 3
http: {addr: [1]}
nonsense: 1
`;
  expect(findingsOf(text)).toEqual([
    'lease.type:2 not a known choice; write static',
    'lease.candidat:3 unknown key; did you mean lease.candidate?',
    'data.retention:5 a duration without a unit; write 10s or another unit',
    'proxy:7 not supported by this version; remove it',
    'fuse:9 a section, not a value; write its keys below it',
    'http.addr:10 a list; write one host:port',
    'nonsense:11 unknown key; remove it',
  ]);
  const {message} = failure(() => loadText(text));
  expect(message).toContain('lease.type (line 2) is "raft": not a known choice; write static');
});

test.each([
  ['exec: app', 'exec'],
  ['exec: [{cmd: app}]', 'exec'],
  ['lease: {type: static, promote: true}', 'lease.promote'],
  ['lease: {type: static, consul: {url: "http://a"}}', 'lease.consul'],
  ['backup: {type: file}', 'backup'],
  ['tracing: {path: x}', 'tracing'],
  ['strict-verify: true', 'strict-verify'],
  ['fuse: {debug: true}', 'fuse.debug'],
  ['http: {snapshot-timeout: 1s}', 'http.snapshot-timeout'],
])('loadConfig() knows LiteFS has %s and says that we do not', (text, key) => {
  expect(findingsOf(text)).toContain(`${key}:1 not supported by this version; remove it`);
});

test('loadConfig() says nothing of an unsupported value, which may be a secret', () => {
  expect(failure(() => loadText('backup: {auth-token: hush}\nlease: {type: static}')).message).not.toContain(
    'hush',
  );
});

test('loadConfig() says that Consul is not available yet', () => {
  expect(findingsOf('lease: {type: consul}')).toEqual([
    'lease.type:1 a Consul lease is not available in this version; write static',
  ]);
});

test.each([
  ['', 'empty'],
  ['# only a comment', 'empty'],
  ['~', 'empty'],
  ['- a', 'not a map of keys'],
  ['text', 'not a map of keys'],
  ['lease: {type: static}\n---\nx: 1', 'more than one YAML document'],
  ['lease: {type: static', 'not YAML'],
  ['lease: {type: static}\nlease: {}', 'not YAML'],
])('loadConfig() refuses the file %j', (text, problem) => {
  const error = failure(() => loadText(text));
  expect(error.code).toBe('CONFIG_SYNTAX');
  expect(error.findings[0].problem).toContain(problem);
});

test('loadConfig() ends on a merge that contains itself', () => {
  expect(findingsOf('lease: &a {type: static, <<: *a}')[0]).toContain('nested too deep');
});

test.each([
  ['/a', '/a', 'the same directory as'],
  ['/a', '/a/b', 'inside'],
  ['/a/b', '/a', 'around'],
  ['/a/', '/a/../a', 'the same directory as'],
  ['/', '/data', 'inside'],
])('checkConfig() refuses mount %s with data %s', (mount, data, problem) => {
  expect(findingsOf(`lease: {type: static}\nfuse: {dir: ${mount}}\ndata: {dir: ${data}}`)[0]).toContain(
    problem,
  );
});

test('checkConfig() allows names that only begin alike', () => {
  expect(loadText('lease: {type: static}\nfuse: {dir: /a}\ndata: {dir: /ab}').dataDir).toBe('/ab');
});

test('checkConfig() follows a link in the existing part of a directory', () => {
  mkdirSync(join(root, 'real'));
  symlinkSync(join(root, 'real'), join(root, 'link'));
  const text = `lease: {type: static}\nfuse: {dir: ${root}/real/new}\ndata: {dir: ${root}/link/new/deeper}`;
  expect(findingsOf(text)[0]).toContain('data.dir: inside fuse.dir');
});

test('checkConfig() wants the URL of the primary from a follower', () => {
  expect(findingsOf('lease: {type: static, candidate: false}')[0]).toContain('lease.advertise-url');
});

test('suggestKey() finds slips and lost sections, and nothing where nothing is close', () => {
  expect(suggestKey('lease.advertise_url')).toBe('lease.advertise-url');
  expect(suggestKey('data.retension')).toBe('data.retention');
  expect(suggestKey('advertise-url')).toBe('lease.advertise-url');
  expect(suggestKey('completely.different')).toBeUndefined();
  expect(suggestKey('debug.pending-bite')).toBeUndefined();
});
