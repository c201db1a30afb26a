import type {Socket} from 'node:net';
import type {WebSocket} from 'ws';
import type {StreamLimits} from './stream-limits.ts';

/**
 * Beats on a connection and watches for the peer's signs of life. Any byte that arrives counts, since a heartbeat may be
 * stuck behind a large frame on a slow line. Silence is counted in ticks, not by the clock: a process that was itself
 * held up finds the peer's bytes waiting after one tick. While we don't read (`isPaused`), nothing can be said.
 */
export class Liveness {
  readonly #timer: NodeJS.Timeout;
  #received: number;
  #silentTicks = 0;

  constructor(options: {
    ws: WebSocket;
    socket: Socket;
    limits: StreamLimits;
    onBeat: () => void;
    onSilence: () => void;
  }) {
    const {ws, socket, limits, onBeat, onSilence} = options;
    const silentTicksMax = Math.max(1, Math.floor(limits.silenceMs / limits.heartbeatMs));
    this.#received = socket.bytesRead;
    this.#timer = setInterval(() => {
      onBeat();
      const isAlive = ws.isPaused || socket.bytesRead !== this.#received;
      this.#received = socket.bytesRead;
      this.#silentTicks = isAlive ? 0 : this.#silentTicks + 1;
      if (this.#silentTicks < silentTicksMax) return;
      this.stop();
      onSilence();
    }, limits.heartbeatMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
