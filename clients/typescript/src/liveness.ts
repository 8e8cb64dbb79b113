/** A timer that is later than this was held up by a pause of the process. */
const LATE_MS = 5_000;

/** Time for an answer after a pause. */
const AFTER_PAUSE_MS = 5_000;

/** The actions of the watch of a connection. */
export interface LivenessActions {
  /** Asks the server for a sign of life. */
  probe(): void;
  /** The server gave none. */
  lost(): void;
}

/** Watches whether anything arrives on a connection. */
export class Liveness {
  readonly #actions: LivenessActions;
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heard = Date.now();
  /** When the server must have answered. */
  #deadline: number | undefined;

  /** Begins at once. Asks after `intervalMs` of silence, and waits `timeoutMs` for an answer. */
  constructor(actions: LivenessActions, intervalMs: number, timeoutMs: number) {
    this.#actions = actions;
    this.#intervalMs = intervalMs;
    this.#timeoutMs = timeoutMs;
    this.#schedule();
  }

  /** Something arrived. */
  heard(): void {
    this.#heard = Date.now();
    if (this.#deadline === undefined) return;
    this.#deadline = undefined;
    this.#schedule();
  }

  /** The process may have paused: asks at once. */
  paused(): void {
    this.#probe(Math.min(AFTER_PAUSE_MS, this.#timeoutMs));
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #probe(timeoutMs: number): void {
    this.#deadline = Date.now() + timeoutMs;
    this.#schedule();
    this.#actions.probe();
  }

  /** Timers stand still while a computer sleeps, so none is long: the end of a sleep is noticed soon. */
  #schedule(): void {
    this.stop();
    const due = this.#deadline ?? this.#heard + this.#intervalMs;
    const wait = Math.min(Math.max(due - Date.now(), 0), LATE_MS);
    const expected = Date.now() + wait;
    this.#timer = setTimeout(() => this.#check(expected), wait);
  }

  #check(expected: number): void {
    const now = Date.now();
    // A clock that was set back.
    if (now < this.#heard) this.#heard = now;
    if (now - expected > LATE_MS) this.paused();
    else if (this.#deadline !== undefined && now >= this.#deadline) this.#actions.lost();
    else if (this.#deadline === undefined && now - this.#heard >= this.#intervalMs) this.#probe(this.#timeoutMs);
    else this.#schedule();
  }
}
