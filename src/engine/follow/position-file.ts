import {closeSync, constants, openSync, readFileSync, writeSync} from 'node:fs';
import {EMPTY_POSITION, formatPosition, type Position, parsePosition} from '../../ltx/position.ts';

/** Where a followed database's content stands: text as in `<database>-pos`, rewritten in place after each transaction. */
export class PositionFile {
  readonly #path: string;
  readonly #fd: number;

  constructor(path: string) {
    this.#path = path;
    this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  }

  /** What was written last, or the empty position where that can't be read. */
  read(): Position {
    const text = readFileSync(this.#path, 'utf8').trim();
    return /^[0-9a-f]{16}\/[89a-f][0-9a-f]{15}$/.test(text) ? parsePosition(text) : EMPTY_POSITION;
  }

  write(position: Position): void {
    writeSync(this.#fd, `${formatPosition(position)}\n`, 0, 'latin1');
  }

  close(): void {
    closeSync(this.#fd);
  }
}
