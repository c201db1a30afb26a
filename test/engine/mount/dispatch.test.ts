import {existsSync, linkSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {constants} from 'node:os';
import {join} from 'node:path';
import fc from 'fast-check';
import {afterEach, beforeEach, describe, expect, test} from 'vitest';
import {WaitList} from '../../../src/engine/mount/database-hooks.ts';
import * as op from '../../../src/fuse/opcodes.ts';
import {type Answer, names, u32, u64, World} from './world.ts';

const {EEXIST, EINVAL, EIO, ENOENT, ENOSYS, ENOTEMPTY, ESTALE, EXDEV} = constants.errno;
const ROOT = op.FUSE_ROOT_ID;
const O_CREAT_RDWR = 0o102;
const O_EXCL = 0o200;

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.close());

type Asked = readonly [opcode: number, nodeid: number, body: Buffer];
const create = (name: string, flags = O_CREAT_RDWR | O_EXCL, mode = 0o100640) =>
  [op.FUSE_CREATE, ROOT, Buffer.concat([u32(flags, mode, 0, 0), names(name)])] as Asked;
const mkdir = (name: string) => [op.FUSE_MKDIR, ROOT, Buffer.concat([u32(0o750, 0), names(name)])] as Asked;
const rename = (from: string, to: string) =>
  [op.FUSE_RENAME2, ROOT, Buffer.concat([u64(ROOT), u32(0, 0), names(from, to)])] as Asked;
const unlink = (name: string) => [op.FUSE_UNLINK, ROOT, names(name)] as Asked;
const rmdir = (name: string) => [op.FUSE_RMDIR, ROOT, names(name)] as Asked;
const symlink = (name: string) => [op.FUSE_SYMLINK, ROOT, names(name, 'target')] as Asked;
const mkfifo = (name: string) =>
  [op.FUSE_MKNOD, ROOT, Buffer.concat([u32(0o010640, 0, 0, 0), names(name)])] as Asked;
const link = (nodeid: number, name: string) =>
  [op.FUSE_LINK, ROOT, Buffer.concat([u64(nodeid), names(name)])] as Asked;
const lookup = (name: string) => [op.FUSE_LOOKUP, ROOT, names(name)] as Asked;
const write = (nodeid: number, offset: number, text: string) =>
  [
    op.FUSE_WRITE,
    nodeid,
    Buffer.concat([u64(0, offset), u32(text.length, 0), u64(0), u32(0, 0), Buffer.from(text)]),
  ] as Asked;
const truncate = (nodeid: number, size: number) =>
  [op.FUSE_SETATTR, nodeid, Buffer.concat([u32(op.FATTR_SIZE, 0), u64(0, size), Buffer.alloc(64)])] as Asked;
const getattr = (nodeid: number) => [op.FUSE_GETATTR, nodeid, Buffer.alloc(16)] as Asked;
const forget = (nodeid: number, count: number) => [op.FUSE_FORGET, nodeid, u64(count)] as Asked;

function errno(answer: Answer | undefined): number {
  return answer?.errno ?? -1;
}

function nodeidOf(answer: Answer | undefined): number {
  expect(errno(answer)).toBe(0);
  return Number(answer?.body.readBigUInt64LE(0));
}

describe('requests that come twice', () => {
  const resent = {isResent: true, uid: 1234};

  test('what is already made is a success, with the mode and owner that were asked for', () => {
    for (const [make, mode] of [
      [create('f'), 0o100640],
      [mkdir('d'), 0o040750],
      [mkfifo('p'), 0o010640],
      [symlink('s'), 0o120777],
    ] as const) {
      const nodeid = nodeidOf(world.ask(...make, {uid: 1234}));
      expect(errno(world.ask(...make))).toBe(EEXIST);
      const again = world.ask(...make, resent);
      expect(nodeidOf(again)).toBe(nodeid);
      expect((again?.unique ?? 0n) >> 63n).toBe(1n);
      const attributes = again?.body.subarray(40);
      expect([attributes?.readUInt32LE(60), attributes?.readUInt32LE(68)]).toEqual([mode, 1234]);
    }
  });

  test('a daemon that died in the middle of a CREATE or MKDIR left it to root: the next one puts that right', () => {
    writeFileSync(join(world.files, 'f'), '', {mode: 0o600});
    mkdirSync(join(world.files, 'd'), {mode: 0o700});
    world.ask(...create('f'), resent);
    world.ask(...mkdir('d'), resent);
    expect(world.tree()).toEqual(['/d 40750 1234 1234 - ', '/f 100640 1234 1234 1 ']);
  });

  test('what is already gone is a success', () => {
    world.ask(...create('f'));
    world.ask(...mkdir('d'));
    for (const remove of [unlink('f'), rmdir('d')]) {
      expect(errno(world.ask(...remove))).toBe(0);
      expect(errno(world.ask(...remove))).toBe(ENOENT);
      expect(errno(world.ask(...remove, resent))).toBe(0);
    }
  });

  test('a rename that is already done is a success, and the databases are told again', () => {
    world.ask(...create('a'));
    expect(errno(world.ask(...rename('a', 'b')))).toBe(0);
    expect(errno(world.ask(...rename('a', 'b')))).toBe(ENOENT);
    world.restart();
    expect(errno(world.ask(...rename('a', 'b'), resent))).toBe(0);
    expect(world.hooks.told).toEqual(['renamed a b', 'renamed a b']);
    expect(errno(world.ask(...rename('x', 'y'), resent))).toBe(ENOENT);
  });

  test('a link that is already there is a success', () => {
    const nodeid = nodeidOf(world.ask(...create('a')));
    expect(nodeidOf(world.ask(...link(nodeid, 'b')))).toBe(nodeid);
    expect(errno(world.ask(...link(nodeid, 'b')))).toBe(EEXIST);
    expect(nodeidOf(world.ask(...link(nodeid, 'b'), resent))).toBe(nodeid);
    expect(lstatSync(join(world.files, 'a')).nlink).toBe(2);
  });

  test('a CREATE that found a file which the kernel had not seen makes it look again', () => {
    writeFileSync(join(world.files, 'f'), 'secret', {mode: 0o600});
    expect(errno(world.ask(...create('f', O_CREAT_RDWR), {uid: 1234}))).toBe(ESTALE);
    expect(world.tree()).toEqual(['/f 100600 0 0 1 secret']);
  });

  const name = fc.constantFrom('a', 'b', 'c');
  const step = fc.oneof(
    name.map(n => ({ask: () => create(n)})),
    name.map(n => ({ask: () => mkdir(n)})),
    name.map(n => ({ask: () => unlink(n)})),
    name.map(n => ({ask: () => rmdir(n)})),
    name.map(n => ({ask: () => symlink(n)})),
    fc
      .tuple(name, name)
      .filter(([a, b]) => a !== b)
      .map(([a, b]) => ({ask: () => rename(a, b)})),
    fc.tuple(name, name).map(([a, b]) => ({ask: (w: World) => link(nodeOf(w, a), b)})),
    fc
      .tuple(name, fc.nat({max: 9}), fc.string({maxLength: 5}))
      .map(([a, at, text]) => ({ask: (w: World) => write(nodeOf(w, a), at, text)})),
    fc.tuple(name, fc.nat({max: 9})).map(([a, size]) => ({ask: (w: World) => truncate(nodeOf(w, a), size)})),
  );

  function nodeOf(w: World, file: string): number {
    const answer = w.ask(...lookup(file));
    const nodeid = answer?.errno === 0 ? Number(answer.body.readBigUInt64LE(0)) : 0;
    return nodeid === 0 ? 0 : nodeid;
  }

  /** What the kernel would not let through: it knows what is a folder. */
  function isSent(w: World, [opcode, nodeid]: Asked): boolean {
    const {inodes} = w.context;
    if (nodeid === 0) return false;
    return opcode !== op.FUSE_WRITE && opcode !== op.FUSE_SETATTR
      ? true
      : inodes.peek(nodeid)?.isDirectory === false;
  }

  test('every request, sent again after a success to the same daemon or another, succeeds and changes nothing more', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.boolean()), {maxLength: 25}), steps => {
        const w = new World();
        try {
          for (const [{ask}, isRestarted] of steps) {
            const asked = ask(w);
            if (!isSent(w, asked)) continue;
            if (errno(w.ask(...asked)) !== 0) continue;
            const before = w.tree();
            if (isRestarted) w.restart();
            expect(errno(w.ask(...asked, {isResent: true}))).toBe(0);
            expect(w.tree()).toEqual(before);
          }
        } finally {
          w.close();
        }
      }),
      {numRuns: 60},
    );
  });
});

describe('files without a name', () => {
  test('an unlinked file keeps its bytes and its number until the kernel forgets it', () => {
    const nodeid = nodeidOf(world.ask(...create('f')));
    world.ask(...write(nodeid, 0, 'bytes'));
    nodeidOf(world.ask(...lookup('f')));
    world.ask(...unlink('f'));
    expect(world.hooks.told).toEqual(['unlinked f']);
    expect(readFileSync(join(world.hidden, String(nodeid)), 'utf8')).toBe('bytes');
    expect(world.ask(...forget(nodeid, 1))).toBeUndefined();
    expect(world.ask(...getattr(nodeid))?.body.readUInt32LE(16 + 64)).toBe(0); // nlink
    world.ask(...forget(nodeid, 1));
    expect(readdirSync(world.hidden)).toEqual([]);
  });

  test('another daemon finds it, and removes it when it is forgotten, known or not', () => {
    const nodeids = ['f', 'g'].map(name => nodeidOf(world.ask(...create(name))));
    for (const name of ['f', 'g']) world.ask(...unlink(name));
    world.restart();
    expect(errno(world.ask(...getattr(nodeids[0] ?? 0)))).toBe(0);
    world.ask(op.FUSE_BATCH_FORGET, 0, Buffer.concat([u32(2, 0), ...nodeids.map(nodeid => u64(nodeid, 1))]));
    expect(readdirSync(world.hidden)).toEqual([]);
  });

  test('a BATCH_FORGET that claims more than it holds is cut short', () => {
    const nodeid = nodeidOf(world.ask(...create('f')));
    world.ask(op.FUSE_BATCH_FORGET, 0, Buffer.concat([u32(0xffff_ffff, 0), u64(nodeid, 1)]));
    expect(world.context.inodes.peek(nodeid)).toBeUndefined();
  });

  test('the file that a rename replaces lives on; of two links the other name does', () => {
    const [a, b] = ['a', 'b'].map(name => nodeidOf(world.ask(...create(name))));
    world.ask(...write(b ?? 0, 0, 'old'));
    world.ask(...rename('a', 'b'));
    expect(readFileSync(join(world.hidden, String(b)), 'utf8')).toBe('old');
    world.ask(...link(a ?? 0, 'c'));
    nodeidOf(world.ask(...create('d')));
    world.ask(...rename('d', 'b'));
    expect(existsSync(join(world.hidden, String(a)))).toBe(false);
    expect(
      world.context.inodes.relativePath(world.context.inodes.get(a ?? 0) ?? world.context.inodes.root),
    ).toBe('c');
    expect(world.hooks.told).toEqual(['unlinked b', 'renamed a b', 'renamed b c', 'renamed d b']);
  });

  test('a daemon that died between the hidden name and the rename: the file still has its own name', () => {
    for (const isResent of [true, false]) {
      const from = `from-${isResent}`;
      const to = `to-${isResent}`;
      nodeidOf(world.ask(...create(from)));
      const target = nodeidOf(world.ask(...create(to)));
      linkSync(join(world.files, to), join(world.hidden, String(target)));
      world.restart();
      world.ask(...getattr(target));
      expect(world.context.inodes.get(target)?.isHidden).toBe(false);
      if (isResent) expect(errno(world.ask(...rename(from, to), {isResent}))).toBe(0);
      else expect(world.ask(...lookup(to))?.body.readUInt32LE(40 + 64)).toBe(1); // nlink
      expect(readdirSync(world.hidden).includes(String(target))).toBe(isResent);
    }
  });

  test('a second name that goes is nothing to a database; the first one that goes is a rename', () => {
    const nodeid = nodeidOf(world.ask(...create('app.db')));
    world.ask(...link(nodeid, 'copy.db'));
    world.ask(...lookup('copy.db'));
    world.ask(...unlink('copy.db'));
    expect(world.hooks.told).toEqual([]);
    world.ask(...link(nodeid, 'copy.db'));
    world.ask(...rename('copy.db', 'other.db'));
    expect(world.hooks.told).toEqual([]);
    world.ask(...unlink('app.db'));
    expect(world.hooks.told).toEqual(['renamed app.db other.db']);
    world.ask(...unlink('other.db'));
    expect(world.hooks.told).toEqual(['renamed app.db other.db', 'unlinked other.db']);
  });

  test('a removed folder keeps its number, is empty, and goes when it is forgotten', () => {
    const nodeid = nodeidOf(world.ask(...mkdir('d')));
    writeFileSync(join(world.files, 'd/x'), '');
    expect(errno(world.ask(...rmdir('d')))).toBe(ENOTEMPTY);
    world.ask(op.FUSE_UNLINK, nodeid, names('x'));
    expect(errno(world.ask(...rmdir('d')))).toBe(0);
    expect(nodeidOf(world.ask(...mkdir('d')))).not.toBe(nodeid);
    expect(errno(world.ask(...getattr(nodeid)))).toBe(0);
    world.ask(...forget(nodeid, 2));
    expect(readdirSync(`${world.hidden}-folders`)).toEqual([]);
  });
});

describe('dispatch()', () => {
  test('a refusal is the answer, a wait list gets the whole request', () => {
    const nodeid = nodeidOf(world.ask(...create('f')));
    for (const ask of [
      write(nodeid, 0, 'x'),
      truncate(nodeid, 3),
      create('g'),
      unlink('f'),
      rename('f', 'g'),
      link(nodeid, 'l'),
      mkfifo('p'),
    ]) {
      world.hooks.verdict = EXDEV;
      expect(errno(world.ask(...ask))).toBe(EXDEV);
      const waits = new WaitList();
      world.hooks.verdict = waits;
      expect(world.ask(...ask)).toBeUndefined();
      const [parked, ...others] = waits.takeAll();
      expect([parked?.subarray(40), others, waits.count]).toEqual([ask[2], [], 0]);
    }
    expect(world.tree()).toEqual(['/f 100640 0 0 1 ']);
  });

  test('what is not known is ENOSYS, DESTROY succeeds, INTERRUPT and FORGET are not answered', () => {
    for (const opcode of [25 /* FLUSH */, 27 /* OPENDIR */, 29 /* RELEASEDIR */, 39 /* IOCTL */, 4095])
      expect(errno(world.ask(opcode, ROOT, Buffer.alloc(64)))).toBe(ENOSYS);
    expect(errno(world.ask(op.FUSE_DESTROY, ROOT, Buffer.alloc(0)))).toBe(0);
    for (const opcode of [op.FUSE_INTERRUPT, op.FUSE_FORGET, op.FUSE_BATCH_FORGET, op.FUSE_NOTIFY_REPLY])
      expect(world.ask(opcode, 99, Buffer.alloc(16))).toBeUndefined();
  });

  test('a node ID of no file is ENOENT', () => {
    for (const opcode of [
      op.FUSE_GETATTR,
      op.FUSE_OPEN,
      op.FUSE_READ,
      op.FUSE_WRITE,
      op.FUSE_READDIR,
      op.FUSE_LOOKUP,
      op.FUSE_SETATTR,
    ]) {
      expect([
        opcode,
        errno(world.ask(opcode, 2 ** 50, opcode === op.FUSE_LOOKUP ? names('x') : Buffer.alloc(100))),
      ]).toEqual([opcode, ENOENT]);
    }
  });

  test('a request without the name that it needs is refused', () => {
    expect(errno(world.ask(op.FUSE_LOOKUP, ROOT, Buffer.from('no end')))).toBe(EINVAL);
    expect(errno(world.ask(op.FUSE_RENAME2, ROOT, Buffer.concat([u64(ROOT), u32(0, 0), names('one')])))).toBe(
      EINVAL,
    );
    for (const bad of ['..', '.', '', 'a/b']) expect(errno(world.ask(...lookup(bad)))).toBe(EINVAL);
  });

  test('what is no error of the world is EIO to the app, and not hidden', () => {
    world.hooks.beforeOpen = () => {
      throw new TypeError('ours');
    };
    const nodeid = nodeidOf(world.ask(...create('f')));
    expect(() => world.ask(op.FUSE_OPEN, nodeid, u32(0, 0))).toThrow('ours');
    expect(EIO).toBe(5);
  });
});
