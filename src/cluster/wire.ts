import type {Position, Txid} from '../ltx/position.ts';
import {WireError, WireReader, WireWriter} from './wire-bytes.ts';
import {
  DATABASE_NAME_SIZE_MAX,
  PAGE_COUNT_MAX,
  readList,
  readName,
  readPageSize,
  readPgno,
  readPreamble,
  readSpan,
  writeId,
  writeList,
  writeName,
  writePreamble,
  writeSpan,
} from './wire-fields.ts';

/** Where the primary's HTTP server takes the followers' WebSockets. */
export const STREAM_PATH = '/ferrite/stream';

/** The largest frame either end accepts, in bytes. */
export const FRAME_SIZE_MAX = 1024 * 1024;

/** The most bytes of records or pages in one frame: the quantum in which databases take turns. */
export const PAYLOAD_SIZE_MAX = 256 * 1024;

const NODE_ID_SIZE_MAX = 128;
const MESSAGE_SIZE_MAX = 1024;

export const refusalCodes = [
  'version',
  'cluster',
  'term',
  'self',
  'replaced',
  'protocol',
  'closing',
] as const;
/** Why the primary does not serve a follower. */
export type RefusalCode = (typeof refusalCodes)[number];

export const rewindReasons = ['diverged', 'unverifiable'] as const;
/**
 * `diverged`: the follower's last transaction is not in the primary's log, though the log covers its place.
 * `unverifiable`: the primary's log no longer reaches back to the follower's position.
 */
export type RewindReason = (typeof rewindReasons)[number];

export const resyncWants = ['log', 'snapshot'] as const;
export type ResyncWant = (typeof resyncWants)[number];

/** A database as a follower announces it. */
export interface FollowerPosition {
  readonly id: string;
  readonly name: string;
  readonly position: Position;
  readonly term: bigint;
}

/** A database as the primary announces it. */
export interface CatalogueEntry {
  readonly id: string;
  readonly name: string;
  readonly position: Position;
}

/** `records`, `chunk` and `pages` payloads are views into the frame they were decoded from. */
export type Frame =
  | {readonly type: 'hello'; readonly nodeId: string; readonly clusterId: string; readonly termSeen: bigint}
  | {readonly type: 'positions'; readonly isLast: boolean; readonly entries: readonly FollowerPosition[]}
  | {readonly type: 'ack'; readonly entries: readonly {readonly id: string; readonly position: Position}[]}
  | {readonly type: 'credit'; readonly entries: readonly {readonly id: string; readonly size: number}[]}
  | {
      readonly type: 'resync';
      readonly id: string;
      readonly position: Position;
      readonly term: bigint;
      readonly want: ResyncWant;
    }
  | {readonly type: 'heartbeat'; readonly timestampMs: number; readonly isCaughtUp: boolean}
  | {readonly type: 'welcome'; readonly nodeId: string; readonly clusterId: string; readonly term: bigint}
  | {readonly type: 'refused'; readonly code: RefusalCode; readonly message: string}
  | {readonly type: 'catalogue'; readonly isLast: boolean; readonly entries: readonly CatalogueEntry[]}
  | {readonly type: 'create'; readonly id: string; readonly name: string}
  | {readonly type: 'rename'; readonly id: string; readonly name: string}
  | {readonly type: 'drop'; readonly id: string}
  | {readonly type: 'orphan'; readonly id: string}
  | {readonly type: 'rewind'; readonly id: string; readonly reason: RewindReason; readonly position: Position}
  | {
      readonly type: 'records';
      readonly id: string;
      readonly minTxid: Txid;
      readonly maxTxid: Txid;
      readonly bytes: Uint8Array;
    }
  | {
      readonly type: 'record-begin';
      readonly id: string;
      readonly minTxid: Txid;
      readonly maxTxid: Txid;
      readonly size: number;
    }
  | {
      readonly type: 'snapshot-begin';
      readonly id: string;
      readonly from: Position;
      readonly fromTerm: bigint;
      readonly pageSize: number;
      readonly pageCount: number;
    }
  | {readonly type: 'pages'; readonly id: string; readonly pgno: number; readonly bytes: Uint8Array}
  | {readonly type: 'chunk'; readonly id: string; readonly bytes: Uint8Array}
  | {readonly type: 'end'; readonly id: string; readonly txid: Txid}
  | {readonly type: 'abort'; readonly id: string}
  | {readonly type: 'restart'; readonly id: string}
  | {readonly type: 'ready'; readonly databaseCount: number};

export type FrameType = Frame['type'];
export type FrameOf<T extends FrameType> = Extract<Frame, {readonly type: T}>;

interface FrameCodec<F> {
  readonly tag: number;
  readonly write: (w: WireWriter, frame: F) => void;
  readonly read: (r: WireReader) => F;
}

// Up: 1-15. Down: 16-. A tag is never given to another frame. `hello`, `welcome` and `refused` begin alike in every
// version (tag, magic, version), so that nodes of different versions can say so to each other.
const codecs: {readonly [T in FrameType]: FrameCodec<FrameOf<T>>} = {
  hello: {
    tag: 1,
    write: (w, f) => {
      writePreamble(w);
      w.text(f.nodeId, NODE_ID_SIZE_MAX, 'node id');
      w.text(f.clusterId, NODE_ID_SIZE_MAX, 'cluster id');
      w.u64(f.termSeen);
    },
    read: r => {
      readPreamble(r);
      const nodeId = r.text(NODE_ID_SIZE_MAX, 'node id');
      return {type: 'hello', nodeId, clusterId: r.text(NODE_ID_SIZE_MAX, 'cluster id'), termSeen: r.u64()};
    },
  },
  positions: {
    tag: 2,
    write: (w, f) => {
      w.flag(f.isLast);
      writeList(w, f.entries, entry => {
        w.id(entry.id);
        w.text(entry.name, DATABASE_NAME_SIZE_MAX, 'database name');
        w.position(entry.position);
        w.u64(entry.term);
      });
    },
    read: r => {
      const isLast = r.flag('last');
      const entries = readList(r, () => ({
        id: r.id(),
        name: r.text(DATABASE_NAME_SIZE_MAX, 'database name'),
        position: r.position(),
        term: r.u64(),
      }));
      return {type: 'positions', isLast, entries};
    },
  },
  ack: {
    tag: 3,
    write: (w, f) =>
      writeList(w, f.entries, entry => {
        w.id(entry.id);
        w.position(entry.position);
      }),
    read: r => ({type: 'ack', entries: readList(r, () => ({id: r.id(), position: r.position()}))}),
  },
  credit: {
    tag: 4,
    write: (w, f) =>
      writeList(w, f.entries, entry => {
        w.id(entry.id);
        w.u32(entry.size);
      }),
    read: r => ({type: 'credit', entries: readList(r, () => ({id: r.id(), size: r.u32()}))}),
  },
  resync: {
    tag: 5,
    write: (w, f) => {
      w.id(f.id);
      w.position(f.position);
      w.u64(f.term);
      w.oneOf(resyncWants, f.want);
    },
    read: r => ({
      type: 'resync',
      id: r.id(),
      position: r.position(),
      term: r.u64(),
      want: r.oneOf(resyncWants, 'resync want'),
    }),
  },
  heartbeat: {
    tag: 6,
    write: (w, f) => {
      w.u64(BigInt(f.timestampMs));
      w.flag(f.isCaughtUp);
    },
    read: r => ({type: 'heartbeat', timestampMs: r.count64('timestamp'), isCaughtUp: r.flag('caught up')}),
  },
  welcome: {
    tag: 16,
    write: (w, f) => {
      writePreamble(w);
      w.text(f.nodeId, NODE_ID_SIZE_MAX, 'node id');
      w.text(f.clusterId, NODE_ID_SIZE_MAX, 'cluster id');
      w.u64(f.term);
    },
    read: r => {
      readPreamble(r);
      const nodeId = r.text(NODE_ID_SIZE_MAX, 'node id');
      return {type: 'welcome', nodeId, clusterId: r.text(NODE_ID_SIZE_MAX, 'cluster id'), term: r.u64()};
    },
  },
  refused: {
    tag: 17,
    write: (w, f) => {
      writePreamble(w);
      w.oneOf(refusalCodes, f.code);
      w.text(f.message, MESSAGE_SIZE_MAX, 'message');
    },
    read: r => {
      readPreamble(r);
      return {
        type: 'refused',
        code: r.oneOf(refusalCodes, 'refusal code'),
        message: r.text(MESSAGE_SIZE_MAX, 'message'),
      };
    },
  },
  catalogue: {
    tag: 18,
    write: (w, f) => {
      w.flag(f.isLast);
      writeList(w, f.entries, entry => {
        w.id(entry.id);
        w.text(entry.name, DATABASE_NAME_SIZE_MAX, 'database name');
        w.position(entry.position);
      });
    },
    read: r => {
      const isLast = r.flag('last');
      const entries = readList(r, () => ({
        id: r.id(),
        name: r.text(DATABASE_NAME_SIZE_MAX, 'database name'),
        position: r.position(),
      }));
      return {type: 'catalogue', isLast, entries};
    },
  },
  create: {tag: 19, write: writeName, read: r => ({type: 'create', ...readName(r)})},
  rename: {tag: 20, write: writeName, read: r => ({type: 'rename', ...readName(r)})},
  drop: {tag: 21, write: writeId, read: r => ({type: 'drop', id: r.id()})},
  orphan: {tag: 22, write: writeId, read: r => ({type: 'orphan', id: r.id()})},
  rewind: {
    tag: 23,
    write: (w, f) => {
      w.id(f.id);
      w.oneOf(rewindReasons, f.reason);
      w.position(f.position);
    },
    read: r => ({
      type: 'rewind',
      id: r.id(),
      reason: r.oneOf(rewindReasons, 'rewind reason'),
      position: r.position(),
    }),
  },
  records: {
    tag: 24,
    write: (w, f) => {
      writeSpan(w, f);
      w.rest(f.bytes, PAYLOAD_SIZE_MAX);
    },
    read: r => ({type: 'records', ...readSpan(r), bytes: r.rest(PAYLOAD_SIZE_MAX)}),
  },
  'record-begin': {
    tag: 25,
    write: (w, f) => {
      writeSpan(w, f);
      w.u64(BigInt(f.size));
    },
    read: r => ({type: 'record-begin', ...readSpan(r), size: r.count64('record size')}),
  },
  'snapshot-begin': {
    tag: 26,
    write: (w, f) => {
      w.id(f.id);
      w.position(f.from);
      w.u64(f.fromTerm);
      w.u32(f.pageSize);
      w.u32(f.pageCount);
    },
    read: r => {
      const head = {id: r.id(), from: r.position(), fromTerm: r.u64()};
      return {type: 'snapshot-begin', ...head, pageSize: readPageSize(r), pageCount: r.u32()};
    },
  },
  pages: {
    tag: 27,
    write: (w, f) => {
      w.id(f.id);
      w.u32(f.pgno);
      w.rest(f.bytes, PAYLOAD_SIZE_MAX);
    },
    read: r => ({type: 'pages', id: r.id(), pgno: readPgno(r), bytes: r.rest(PAYLOAD_SIZE_MAX)}),
  },
  chunk: {
    tag: 28,
    write: (w, f) => {
      w.id(f.id);
      w.rest(f.bytes, PAYLOAD_SIZE_MAX);
    },
    read: r => ({type: 'chunk', id: r.id(), bytes: r.rest(PAYLOAD_SIZE_MAX)}),
  },
  end: {
    tag: 29,
    write: (w, f) => {
      w.id(f.id);
      w.u64(f.txid);
    },
    read: r => ({type: 'end', id: r.id(), txid: r.txid()}),
  },
  abort: {tag: 30, write: writeId, read: r => ({type: 'abort', id: r.id()})},
  restart: {tag: 31, write: writeId, read: r => ({type: 'restart', id: r.id()})},
  ready: {
    tag: 32,
    write: (w, f) => w.u32(f.databaseCount),
    read: r => ({type: 'ready', databaseCount: r.u32()}),
  },
};

const codecByTag = new Map<number, FrameCodec<Frame>>(
  Object.values(codecs).map(codec => [codec.tag, codec as FrameCodec<Frame>]),
);

/** Encodes one frame: the payload of one binary WebSocket message. Throws `WIRE_OVERSIZE` or `WIRE_BAD_VALUE`. */
export function encodeFrame(frame: Frame): Uint8Array {
  const codec = codecs[frame.type] as FrameCodec<Frame>;
  const w = new WireWriter('bytes' in frame ? frame.bytes.length + 64 : 128);
  w.u8(codec.tag);
  codec.write(w, frame);
  return w.finish();
}

/**
 * Decodes one message. Throws `WireError`: `WIRE_VERSION` (with `theirs` and `ours` in its detail) where a handshake
 * frame is of another version, any other code where the bytes are no frame at all.
 */
export function decodeFrame(bytes: Uint8Array): Frame {
  if (bytes.length > FRAME_SIZE_MAX) {
    throw new WireError(
      'WIRE_OVERSIZE',
      `Cannot read frame: ${bytes.length} bytes, at most ${FRAME_SIZE_MAX}`,
    );
  }
  const r = new WireReader(bytes);
  const tag = r.u8();
  const codec = codecByTag.get(tag);
  if (codec === undefined)
    throw new WireError('WIRE_BAD_TYPE', `Cannot read frame: unknown type ${tag}`, {tag});
  const frame = codec.read(r);
  r.end();
  return frame;
}

/** Splits `entries` into runs that fit one frame each. At least one run, which may be empty. */
export function inPages<T>(entries: readonly T[]): (readonly T[])[] {
  const pages: (readonly T[])[] = [];
  for (let start = 0; start < entries.length; start += PAGE_COUNT_MAX) {
    pages.push(entries.slice(start, start + PAGE_COUNT_MAX));
  }
  return pages.length === 0 ? [[]] : pages;
}
