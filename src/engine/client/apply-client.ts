import {MessageChannel, type MessagePort, Worker} from 'node:worker_threads';
import type {Position} from '../../ltx/position.ts';
import type {ApplyCommand, ApplyEvent, ApplyRequest, ApplyThreadData} from '../apply-messages.ts';

/** The apply thread could not do what was asked; `code` is that of the error there. */
export class ApplyRefusal extends Error {
  override readonly name = 'ApplyRefusal';
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

interface PendingAnswer {
  readonly resolve: (position: Position | undefined) => void;
  readonly reject: (error: Error) => void;
}

/** Main's end of the apply thread. */
export class ApplyClient {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #answers = new Map<number, PendingAnswer>();
  readonly #onEvent: (event: ApplyEvent) => void;
  #requestLast = 0;

  constructor(
    options: Omit<ApplyThreadData, 'port'>,
    onEvent: (event: ApplyEvent) => void,
    onFailure: (error: Error) => void,
  ) {
    this.#onEvent = onEvent;
    const {port1, port2} = new MessageChannel();
    this.#port = port1;
    port1.on('message', (event: ApplyEvent) => this.#receive(event));
    const workerData: ApplyThreadData = {...options, port: port2};
    this.#worker = new Worker(new URL('../apply-thread.js', import.meta.url), {
      workerData,
      transferList: [port2],
    });
    this.#worker.once('error', onFailure);
  }

  /** Asks and waits. When `signal` aborts, waiting for readers ends and the promise rejects soon. */
  async ask(question: ApplyRequest, signal?: AbortSignal): Promise<Position | undefined> {
    const request = ++this.#requestLast;
    const cancel = () => this.#send({type: 'cancel', request});
    signal?.addEventListener('abort', cancel, {once: true});
    try {
      return await new Promise<Position | undefined>((resolve, reject) => {
        this.#answers.set(request, {resolve, reject});
        this.#send({type: 'ask', request, question});
      });
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Ends the thread: whatever it has in hand is as after a crash, which it survives. */
  async close(): Promise<void> {
    this.#port.close();
    await this.#worker.terminate();
    for (const {reject} of this.#answers.values())
      reject(new ApplyRefusal('APPLY_CANCELLED', 'Cannot answer: the apply thread has ended'));
    this.#answers.clear();
  }

  #send(command: ApplyCommand): void {
    this.#port.postMessage(command);
  }

  #receive(event: ApplyEvent): void {
    if (event.type === 'answer') this.#take(event.request)?.resolve(event.position);
    else if (event.type === 'refused')
      this.#take(event.request)?.reject(new ApplyRefusal(event.code, event.message));
    else this.#onEvent(event);
  }

  #take(request: number): PendingAnswer | undefined {
    const pending = this.#answers.get(request);
    this.#answers.delete(request);
    return pending;
  }
}
