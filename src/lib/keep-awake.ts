import {closeSync, constants, openSync, readFileSync, writeSync} from 'node:fs';
import {availableParallelism} from 'node:os';

// Documentation/power/pm_qos_interface.rst: what is written here, an s32 of microseconds, is the longest time that
// a sleeping CPU may take to wake up. It holds for as long as the descriptor is open, so it ends with the process.
const DEVICE = '/dev/cpu_dma_latency';
const DRIVER = '/sys/devices/system/cpu/cpuidle/current_driver';
/** PM_QOS_CPU_LATENCY_DEFAULT_VALUE, 2000 s: no request. */
const ANY_LATENCY_US = 2_000_000_000;
/** Allows a physical CPU its lightest sleep. */
const LIGHT_SLEEP_US = 2;
/** A virtual CPU that sleeps is taken off its physical one: it must not sleep at all. */
const NO_SLEEP_US = 0;
/** Idle virtual CPUs that look for work take time from others on the host: not for many of them. */
const VIRTUAL_CPU_COUNT_MAX = 16;
/** Events between two ticks from which on the CPUs are kept awake. */
const BUSY_COUNT = 64;

/**
 * Keeps the machine's idle CPUs from sleeping deeply while there is much to do. A request and its answer go from one CPU to
 * another and back, and on a virtual machine waking each of them takes longer than serving the request.
 */
export class KeepAwake {
  readonly #fd: number;
  readonly #latencyUs: number;
  #count = 0;
  #isHeld = false;

  /** `isWanted` false, no right to the device (it is root's), or too many virtual CPUs: it does nothing. */
  constructor(isWanted: boolean) {
    this.#latencyUs = latencyUs();
    this.#fd = isWanted && this.#latencyUs < ANY_LATENCY_US ? openDevice() : -1;
  }

  /** Something was done that somebody waits for. */
  note(): void {
    if (++this.#count === BUSY_COUNT && !this.#isHeld) this.#request(this.#latencyUs);
  }

  /** Called now and then: lets go when little was noted since the last time. */
  tick(): void {
    if (this.#isHeld && this.#count < BUSY_COUNT) this.#request(ANY_LATENCY_US);
    this.#count = 0;
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
  }

  #request(us: number): void {
    this.#isHeld = us !== ANY_LATENCY_US;
    if (this.#fd >= 0) writeSync(this.#fd, new Uint8Array(Int32Array.of(us).buffer));
  }
}

function openDevice(): number {
  try {
    return openSync(DEVICE, constants.O_WRONLY);
  } catch {
    return -1; // Only a matter of speed.
  }
}

function latencyUs(): number {
  if (readDriver() !== 'haltpoll') return LIGHT_SLEEP_US;
  return availableParallelism() <= VIRTUAL_CPU_COUNT_MAX ? NO_SLEEP_US : ANY_LATENCY_US;
}

/** The cpuidle driver: `haltpoll` on virtual machines. */
function readDriver(): string {
  try {
    return readFileSync(DRIVER, 'utf8').trim();
  } catch {
    return 'none';
  }
}
