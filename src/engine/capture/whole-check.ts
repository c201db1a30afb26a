/**
 * Remembers that the files of a database have to be compared with its log as a whole, until a transaction did so and is
 * published. `note` keeps it beyond the daemon's death, and must not throw.
 */
export class WholeCheck {
  readonly #note: (isChecked: boolean) => void;
  #isOpen = false;
  #isPlanWhole = false;
  #isPreparedWhole = false;

  constructor(note: (isChecked: boolean) => void) {
    this.#note = note;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  begin(): void {
    this.#isOpen = true;
    this.#note(false);
  }

  /** The record that is made next is of this plan. */
  planned(plan: {readonly isWhole?: boolean} | undefined): void {
    this.#isPlanWhole = plan?.isWhole === true;
  }

  /** What was planned is in the log. */
  published(): void {
    if (this.#isPlanWhole) this.#end();
    this.#isPlanWhole = false;
  }

  /** What was planned is prepared, and becomes a transaction when the journal goes. */
  prepared(): void {
    this.#isPreparedWhole = this.#isPlanWhole;
    this.#isPlanWhole = false;
  }

  /** What was prepared is in the log. */
  confirmed(): void {
    if (this.#isPreparedWhole) this.#end();
    this.#isPreparedWhole = false;
  }

  withdrawn(): void {
    this.#isPreparedWhole = false;
  }

  #end(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#note(true);
  }
}
