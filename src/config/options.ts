import {
  type Parsed,
  type Problem,
  parseBoolean,
  parseBytes,
  parseDurationMs,
  parseDurationUs,
  parseHttpUrl,
  parseListenAddress,
  parseOneOf,
  parsePendingByte,
  parseText,
} from './values.ts';

/** One setting. `fallback` is text as an operator would write it, read by the same parser as the file's. */
export interface Option<T> {
  /** Dotted path in the file. */
  readonly key: string;
  /** What the documentation calls this kind of value. */
  readonly type: string;
  readonly parse: (text: string) => Parsed<T>;
  /** `null`: there is none, and the value is `undefined` unless the option is `required`. */
  readonly fallback: string | null;
  readonly doc: string;
  readonly check?: (value: T) => Problem | undefined;
  readonly required?: true;
  /** For tests only: read like the others, but not documented. */
  readonly hidden?: true;
}

/** The value types of an option: `undefined` joins in where it has neither a default nor to be given. */
type ValueOf<O> = O extends {readonly parse: (text: string) => Parsed<infer T>}
  ? O extends {readonly fallback: null; readonly required?: undefined}
    ? T | undefined
    : T
  : never;

function option<T, F extends string | null, R extends true | undefined = undefined>(
  entry: Option<T> & {readonly fallback: F; readonly required?: R},
): Option<T> & {readonly fallback: F; readonly required?: R} {
  return entry;
}

const spinUsMax = 1000;

/** A word that LiteFS knows deserves a better answer than "not a known choice". */
function parseLeaseType(text: string): Parsed<'static'> {
  if (text === 'consul')
    return {problem: 'a Consul lease is not available in this version', remedy: 'write static'};
  return parseOneOf('static')(text);
}

/** Every option, in the order of the documentation. The fields of `Config` are these names. */
export const options = {
  fuseDir: option({
    key: 'fuse.dir',
    type: 'path',
    parse: parseText,
    fallback: '/ferrite',
    doc: 'The directory to mount: applications open their databases in it. Created if missing.',
  }),
  fuseAllowOther: option({
    key: 'fuse.allow-other',
    type: 'boolean',
    parse: parseBoolean,
    fallback: 'false',
    doc: 'Let users other than the one that mounts use the mount.',
  }),
  fuseFollowerWrites: option({
    key: 'fuse.follower-writes',
    type: '`busy` or `readonly`',
    parse: parseOneOf('busy', 'readonly'),
    fallback: 'busy',
    doc: "What a write on a follower gets: `busy` lets it wait in SQLite's busy handler, `readonly` refuses it at once.",
  }),
  fuseSpinUs: option({
    key: 'fuse.spin',
    type: 'duration',
    parse: parseDurationUs,
    fallback: '30us',
    doc: 'How long to look for the next request before sleeping: costs some CPU time, saves the wake-up. `0s` turns it off; at most 1ms.',
    check: us => (us <= spinUsMax ? undefined : {problem: 'too long to spin', remedy: 'write at most 1ms'}),
  }),
  fuseKeepAwake: option({
    key: 'fuse.keep-awake',
    type: 'boolean',
    parse: parseBoolean,
    fallback: 'true',
    doc: 'Keep idle CPUs from sleeping while many requests come (PM QoS, `/dev/cpu_dma_latency`, for root only): on virtual machines a wake-up costs more than a request.',
  }),
  dataDir: option({
    key: 'data.dir',
    type: 'path',
    parse: parseText,
    fallback: '/var/lib/ferrite',
    doc: 'Where the databases and their transaction logs are kept. Neither inside the mounted directory nor around it.',
  }),
  dataCompress: option({
    key: 'data.compress',
    type: 'boolean',
    parse: parseBoolean,
    fallback: 'true',
    doc: 'Compress pages in the transaction log with LZ4.',
  }),
  dataRetentionMs: option({
    key: 'data.retention',
    type: 'duration',
    parse: parseDurationMs,
    fallback: '10m',
    doc: 'How long transactions are kept in the log, so that a follower that was away can catch up. `0s` keeps them for ever.',
  }),
  dataRetentionMonitorIntervalMs: option({
    key: 'data.retention-monitor-interval',
    type: 'duration',
    parse: parseDurationMs,
    fallback: '1m',
    doc: 'How often the log is looked through for transactions that may go. `0s` turns it off.',
  }),
  dataRetentionBytesMax: option({
    key: 'data.retention-size',
    type: 'size',
    parse: parseBytes,
    fallback: null,
    doc: 'The most bytes that the log of one database keeps, whatever its age, for example `512MiB`. No limit unless set.',
  }),
  httpAddr: option({
    key: 'http.addr',
    type: 'host:port',
    parse: parseListenAddress,
    fallback: ':20202',
    doc: 'Where the node listens for its followers and for the HTTP API. Without a host: on every address.',
  }),
  leaseType: option({
    key: 'lease.type',
    type: '`static`',
    parse: parseLeaseType,
    fallback: null,
    required: true,
    doc: 'How the primary is chosen. `static`: by `lease.candidate`, for good. Must be set.',
  }),
  leaseHostname: option({
    key: 'lease.hostname',
    type: 'text',
    parse: parseText,
    fallback: null,
    doc: 'The name of the primary, as the file `.primary` shows it.',
  }),
  leaseAdvertiseUrl: option({
    key: 'lease.advertise-url',
    type: 'URL',
    parse: parseHttpUrl,
    fallback: null,
    doc: "The URL of the primary's `http.addr`. A follower must have it.",
  }),
  leaseCandidate: option({
    key: 'lease.candidate',
    type: 'boolean',
    parse: parseBoolean,
    fallback: 'true',
    doc: 'Whether this node is the primary. Exactly one node of a cluster must be.',
  }),
  leaseReconnectDelayMs: option({
    key: 'lease.reconnect-delay',
    type: 'duration',
    parse: parseDurationMs,
    fallback: '1s',
    doc: 'The longest pause of a follower between two attempts to reach the primary.',
  }),
  logFormat: option({
    key: 'log.format',
    type: '`text` or `json`',
    parse: parseOneOf('text', 'json'),
    fallback: 'text',
    doc: "The form of the log's lines, which go to standard error.",
  }),
  logTimestamp: option({
    key: 'log.timestamp',
    type: 'boolean',
    parse: parseBoolean,
    fallback: 'false',
    doc: 'Begin each line of the log with the time.',
  }),
  logDebug: option({
    key: 'log.debug',
    type: 'boolean',
    parse: parseBoolean,
    fallback: 'false',
    doc: 'Log what only helps to find faults in FerriteFS, too.',
  }),
  skipSync: option({
    key: 'skip-sync',
    type: 'boolean',
    parse: parseBoolean,
    fallback: 'false',
    doc: 'Do not wait at start until the node has caught up with the primary.',
  }),
  exitOnError: option({
    key: 'exit-on-error',
    type: 'boolean',
    parse: parseBoolean,
    fallback: 'true',
    doc: 'Exit when the start fails; otherwise stay, so that the machine can be looked at.',
  }),
  debugPendingByte: option({
    key: 'debug.pending-byte',
    type: 'offset',
    parse: parsePendingByte,
    fallback: '0x40000000',
    hidden: true,
    doc: "SQLite's PENDING lock byte, moved so that a test reaches the lock page with a small database.",
  }),
} as const;

/** The values of every option by name, plus the file that they come from. Directories are absolute. */
export type Config = {readonly [Name in keyof typeof options]: ValueOf<(typeof options)[Name]>} & {
  readonly path: string;
};

/** The table as a list, for what treats all options alike. */
export const optionList: readonly (readonly [name: string, option: Option<unknown>])[] = Object.entries(
  options,
).map(([name, entry]) => [name, entry as Option<unknown>] as const);
