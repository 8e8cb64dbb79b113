import { backoffMs, type Bounds } from "./backoff.js";
import type { Calls } from "./calls.js";
import { callbackReason, isFinal, type Credentials } from "./credentials.js";
import { SignalboxError } from "./errors.js";
import type { Report } from "./types.js";

/** Replaces the token of an open connection before it expires. */
export class TokenRenewal {
  readonly #credentials: Credentials;
  readonly #calls: Calls;
  readonly #backoff: Bounds;
  readonly #report: Report;
  readonly #end: Report;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  /** The number of the renewal: results of an earlier one are ignored. */
  #current = 0;

  /** `report` gets an error after which the connection lasts until the token expires, `end` one that ends the client. */
  constructor(credentials: Credentials, calls: Calls, backoff: Bounds, report: Report, end: Report) {
    this.#credentials = credentials;
    this.#calls = calls;
    this.#backoff = backoff;
    this.#report = report;
    this.#end = end;
  }

  /** The token expires soon. Without a callback nothing can be done. */
  start(): void {
    if (!this.#credentials.renewable) return;
    this.stop();
    this.#failures = 0;
    this.#renew();
  }

  /** The connection is gone. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#current += 1;
  }

  #renew(): void {
    const current = this.#current;
    const isCurrent = () => current === this.#current;
    const failed = (error: SignalboxError) => isCurrent() && this.#failed(error);
    this.#credentials.renew().then(
      (token) => isCurrent() && this.#calls.sendNow({ type: "token", payload: token }, { answered: () => {}, failed }),
      (error: unknown) => {
        if (!isCurrent()) return;
        const final = isFinal(error);
        const failure = new SignalboxError(final ? "unauthorized" : "token_failed", callbackReason(error), { cause: error });
        if (final) {
          this.#end(failure);
        } else {
          this.#report(failure);
          this.#failed(failure);
        }
      },
    );
  }

  #failed(error: SignalboxError): void {
    if (error.retryable) {
      this.#timer = setTimeout(() => this.#renew(), backoffMs(this.#failures++, this.#backoff));
    } else {
      this.#report(error);
    }
  }
}
