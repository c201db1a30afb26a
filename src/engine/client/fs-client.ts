import {closeSync, writeSync} from 'node:fs';
import {MessageChannel, type MessagePort, Worker} from 'node:worker_threads';
import {eventfd} from '../../lib/libc.ts';
import type {FsAnswer, FsCommand, FsEvent, FsQuestion, FsThreadData} from '../messages.ts';

export type FsThreadOptions = Omit<FsThreadData, 'wakeFd' | 'port' | 'taken'>;

interface PendingAnswer {
  readonly resolve: (answer: FsAnswer) => void;
  readonly reject: (error: Error) => void;
}

const WAKE = new Uint8Array(new BigUint64Array([1n]).buffer);

/** Main's end of the fs thread: commands go there, events come back in order. */
export class FsClient {
  readonly #port: MessagePort;
  readonly #wakeFd: number;
  readonly #answers = new Map<number, PendingAnswer>();
  readonly #onEvent: (event: FsEvent) => void;
  #requestLast = 0;

  private constructor(
    port: MessagePort,
    wakeFd: number,
    taken: SharedArrayBuffer,
    onEvent: (event: FsEvent) => void,
  ) {
    this.#port = port;
    this.#wakeFd = wakeFd;
    this.#onEvent = onEvent;
    const counter = new Int32Array(taken);
    port.on('message', (events: readonly FsEvent[]) => {
      for (const event of events) this.#receive(event);
      Atomics.add(counter, 0, 1);
    });
  }

  /** Loads the thread's code; nothing runs yet. */
  static preload(): Worker {
    return new Worker(new URL('../fs-thread.js', import.meta.url));
  }

  /** Lets a preloaded thread begin. `onFailure` is called when it ends by an error: the process can't go on then. */
  static start(
    worker: Worker,
    options: FsThreadOptions,
    onEvent: (event: FsEvent) => void,
    onFailure: (error: Error) => void,
  ): FsClient {
    const wakeFd = eventfd();
    const {port1, port2} = new MessageChannel();
    const taken = new SharedArrayBuffer(4);
    const data: FsThreadData = {...options, wakeFd, port: port2, taken};
    worker.once('error', onFailure);
    worker.postMessage(data, [port2]);
    return new FsClient(port1, wakeFd, taken, onEvent);
  }

  send(command: FsCommand): void {
    this.#port.postMessage(command);
    writeSync(this.#wakeFd, WAKE);
  }

  /** Asks and waits for the answer. Rejects when the thread ends before. */
  async ask<Kind extends FsQuestion['kind']>(
    question: Extract<FsQuestion, {kind: Kind}>,
  ): Promise<Extract<FsAnswer, {kind: Kind}>> {
    const request = this.nextRequest();
    const answer = await new Promise<FsAnswer>((resolve, reject) => {
      this.#answers.set(request, {resolve, reject});
      this.send({type: 'ask', request, question});
    });
    return answer as Extract<FsAnswer, {kind: Kind}>;
  }

  nextRequest(): number {
    return ++this.#requestLast;
  }

  close(): void {
    for (const {reject} of this.#answers.values())
      reject(new Error('Cannot answer: the fs thread has ended'));
    this.#answers.clear();
    this.#port.close();
    closeSync(this.#wakeFd);
  }

  #receive(event: FsEvent): void {
    if (event.type !== 'answer') {
      this.#onEvent(event);
      return;
    }
    const pending = this.#answers.get(event.request);
    this.#answers.delete(event.request);
    if (event.answer.kind === 'failed')
      pending?.reject(new Error('Cannot answer: the disk failed', {cause: event.answer.error}));
    else pending?.resolve(event.answer);
  }
}
