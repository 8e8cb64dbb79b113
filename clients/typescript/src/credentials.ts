import { SignalboxError, textOf } from "./errors.js";
import type { TokenCallback } from "./types.js";

/** After so many refusals in a row the client gives up. */
const REFUSALS_MAX = 3;

/** A token, or the callback that returns one, which is never called twice at the same time. */
export class Credentials {
  readonly #source: string | TokenCallback | undefined;
  readonly #timeoutMs: number;
  #token: string | undefined;
  #pending: Promise<string> | undefined;
  #abort: AbortController | undefined;
  #refusals = 0;

  constructor(source: string | TokenCallback | undefined, timeoutMs: number) {
    this.#source = source;
    this.#timeoutMs = timeoutMs;
  }

  /** Whether there is a callback that can return a new token. */
  get renewable(): boolean {
    return typeof this.#source === "function";
  }

  /** The token for an attempt; `undefined` if there is none at all. */
  async get(): Promise<string | undefined> {
    return typeof this.#source === "function" ? (this.#token ?? this.renew()) : this.#source;
  }

  /** A new token of the callback. It is kept. */
  renew(): Promise<string> {
    this.#token = undefined;
    if (this.#pending) return this.#pending;
    const pending = this.#call().finally(() => {
      if (this.#pending === pending) this.#pending = undefined;
    });
    return (this.#pending = pending);
  }

  /** The server refused the token. Returns `false` if that happened too often. */
  refused(): boolean {
    this.#token = undefined;
    this.#refusals += 1;
    return this.#refusals < REFUSALS_MAX;
  }

  /** The server accepted the token. */
  accepted(): void {
    this.#refusals = 0;
  }

  /** Forgets everything, and no longer wants an answer of the callback. */
  reset(): void {
    this.#abort?.abort();
    this.#token = undefined;
    this.#pending = undefined;
    this.#refusals = 0;
  }

  #call(): Promise<string> {
    const callback = this.#source as TokenCallback;
    const abort = (this.#abort = new AbortController());
    return new Promise<string>((resolve, reject) => {
      const end = (reason: string) => reject(new SignalboxError("unauthorized", reason));
      const timer = setTimeout(() => {
        end(`the token callback has not answered after ${this.#timeoutMs} ms`);
        abort.abort();
      }, this.#timeoutMs);
      abort.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        end("the token is no longer wanted");
      });
      Promise.resolve()
        .then(() => callback(abort.signal))
        .then((token) => {
          if (typeof token !== "string" || token === "") throw new Error("the token callback returned no text");
          // The answer may come after nobody waits for it any more.
          if (!abort.signal.aborted) this.#token = token;
          resolve(token);
        })
        .catch(reject)
        .finally(() => clearTimeout(timer));
    });
  }
}

/** Whether the application marked an error of its callback as final. */
export function isFinal(error: unknown): boolean {
  return (error as { final?: unknown } | null)?.final === true;
}

/** The reason for people if a callback failed. */
export function callbackReason(error: unknown): string {
  return error instanceof SignalboxError ? error.message : `the token callback failed: ${textOf(error)}`;
}
