import {CHECKSUM_FLAG, type Checksum, type Position, type Txid, toChecksum, toTxid} from '../ltx/position.ts';

export type WireErrorCode =
  | 'WIRE_TRUNCATED'
  | 'WIRE_OVERSIZE'
  | 'WIRE_BAD_TYPE'
  | 'WIRE_BAD_VALUE'
  | 'WIRE_TRAILING'
  | 'WIRE_VERSION';

/** The peer sent bytes that are no frame of this protocol. The stream is of no use after it. */
export class WireError extends Error {
  override readonly name = 'WireError';
  readonly code: WireErrorCode;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(code: WireErrorCode, message: string, detail: Readonly<Record<string, unknown>> = {}) {
    super(message);
    this.code = code;
    this.detail = detail;
  }
}

/** Bytes of a database's id on the wire; in memory it is 32 lower-case hex digits. */
export const DATABASE_ID_SIZE = 16;

const utf8 = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true});

/** Reads big-endian fields off one frame. Throws `WIRE_TRUNCATED` where fewer bytes remain than asked for. */
export class WireReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#take(1));
  }

  u16(): number {
    return this.#bytes.readUInt16BE(this.#take(2));
  }

  u32(): number {
    return this.#bytes.readUInt32BE(this.#take(4));
  }

  u64(): bigint {
    return this.#bytes.readBigUInt64BE(this.#take(8));
  }

  /** A count of something that memory or time can hold: refused above 2^53-1. */
  count64(what: string): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw badValue(what, value);
    return Number(value);
  }

  flag(what: string): boolean {
    const value = this.u8();
    if (value > 1) throw badValue(what, value);
    return value === 1;
  }

  /** One of `names`, sent as its 0-based index. */
  oneOf<T extends string>(names: readonly T[], what: string): T {
    const value = this.u8();
    if (value >= names.length) throw badValue(what, value);
    return names[value];
  }

  id(): string {
    const start = this.#take(DATABASE_ID_SIZE);
    return this.#bytes.toString('hex', start, start + DATABASE_ID_SIZE);
  }

  txid(): Txid {
    return toTxid(this.u64());
  }

  position(): Position {
    return {txid: this.txid(), checksum: this.#checksum()};
  }

  /** UTF-8 behind a u16 size, at most `sizeMax` bytes. */
  text(sizeMax: number, what: string): string {
    const size = this.u16();
    if (size > sizeMax) {
      throw new WireError('WIRE_OVERSIZE', `Cannot read ${what}: ${size} bytes, at most ${sizeMax}`);
    }
    const start = this.#take(size);
    try {
      return utf8.decode(this.#bytes.subarray(start, start + size));
    } catch (cause) {
      throw Object.assign(new WireError('WIRE_BAD_VALUE', `Cannot read ${what}: not UTF-8`), {cause});
    }
  }

  /** Everything to the frame's end, as a view; from 1 to `sizeMax` bytes. */
  rest(sizeMax: number): Uint8Array {
    const size = this.remaining;
    if (size > sizeMax) {
      throw new WireError('WIRE_OVERSIZE', `Cannot read payload: ${size} bytes, at most ${sizeMax}`);
    }
    if (size === 0) throw new WireError('WIRE_TRUNCATED', 'Cannot read payload: it is empty');
    const start = this.#take(size);
    return this.#bytes.subarray(start, start + size);
  }

  end(): void {
    if (this.remaining > 0) {
      throw new WireError('WIRE_TRAILING', `Cannot read frame: ${this.remaining} bytes follow its end`);
    }
  }

  #checksum(): Checksum {
    const value = this.u64();
    if ((value & CHECKSUM_FLAG) === 0n) throw badValue('checksum', value);
    return toChecksum(value);
  }

  #take(size: number): number {
    if (size > this.remaining) {
      throw new WireError('WIRE_TRUNCATED', `Cannot read ${size} bytes: ${this.remaining} remain`);
    }
    const start = this.#at;
    this.#at += size;
    return start;
  }
}

/** Writes big-endian fields into one frame that grows as needed. Text that is too long throws `WIRE_OVERSIZE`. */
export class WireWriter {
  #bytes: Buffer;
  #at = 0;

  constructor(capacity = 128) {
    this.#bytes = Buffer.allocUnsafeSlow(capacity);
  }

  u8(value: number): void {
    const at = this.#grow(1);
    this.#bytes.writeUInt8(value, at);
  }

  u16(value: number): void {
    const at = this.#grow(2);
    this.#bytes.writeUInt16BE(value, at);
  }

  u32(value: number): void {
    const at = this.#grow(4);
    this.#bytes.writeUInt32BE(value, at);
  }

  u64(value: bigint): void {
    const at = this.#grow(8);
    this.#bytes.writeBigUInt64BE(value, at);
  }

  flag(value: boolean): void {
    this.u8(value ? 1 : 0);
  }

  oneOf<T extends string>(names: readonly T[], value: T): void {
    this.u8(names.indexOf(value));
  }

  id(id: string): void {
    if (!/^[0-9a-f]{32}$/.test(id)) throw badValue('database id', id);
    const at = this.#grow(DATABASE_ID_SIZE);
    this.#bytes.write(id, at, 'hex');
  }

  position(position: Position): void {
    this.u64(position.txid);
    this.u64(position.checksum);
  }

  text(text: string, sizeMax: number, what: string): void {
    const size = Buffer.byteLength(text);
    if (size > sizeMax) {
      throw new WireError('WIRE_OVERSIZE', `Cannot write ${what}: ${size} bytes, at most ${sizeMax}`);
    }
    this.u16(size);
    const at = this.#grow(size);
    this.#bytes.write(text, at);
  }

  rest(bytes: Uint8Array, sizeMax: number): void {
    if (bytes.length === 0 || bytes.length > sizeMax) {
      throw new WireError(
        'WIRE_OVERSIZE',
        `Cannot write payload: ${bytes.length} bytes, from 1 to ${sizeMax}`,
      );
    }
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** The frame. The writer is of no use after it. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }

  #grow(size: number): number {
    const start = this.#at;
    this.#at += size;
    if (this.#at > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(this.#at, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, start);
      this.#bytes = larger;
    }
    return start;
  }
}

function badValue(what: string, value: unknown): WireError {
  return new WireError('WIRE_BAD_VALUE', `Cannot accept ${what}: ${String(value)}`, {what, value});
}
