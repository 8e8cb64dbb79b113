/** The fallback to server-sent events, for networks that block WebSockets. */
import { SignalboxError } from "./errors.js";
import { Stream } from "./stream.js";
import type { Fallback, Link, LinkEvents, Route } from "./transport.js";
import type { Options, Settings } from "./types.js";
import { verdict, type End, type Verdict } from "./verdict.js";

/** After so long a client that uses the fallback tries a WebSocket again. */
const WEB_SOCKET_AGAIN_MS = 10 * 60_000;

/** So many attempts in a row fail before a client gives up a transport that has worked. */
const FAILURES_MAX = 3;

/** Codes of refusals of the server that tell of a proxy that took the upgrade out of the request. */
const STRIPPED: ReadonlySet<unknown> = new Set(["not_an_upgrade", "websocket_version", "websocket_key"]);

/** Statuses of a server or a proxy that knows no server-sent events. */
const ABSENT: ReadonlySet<unknown> = new Set([404, 405, 410]);

/** Give it to a client as its option `fallback`. */
export const sse: Fallback = (options, settings) => new Choice(options, settings);

/** Chooses the transport of each attempt: section 12 of the specification. */
class Choice implements Route {
  isSecond = false;
  readonly #againMs: number;
  readonly #timeoutMs: number;
  #stream: Stream | undefined;
  #usesSse = false;
  /** Whether no attempt has followed the last connection yet. */
  #isFirst = false;
  /** When the last attempt with a WebSocket began. */
  #webSocketAt = 0;
  /** Whether a frame has arrived since the attempt began. */
  #isAnswered = false;
  /** Whether the last connection was a WebSocket. */
  #hadWebSocket = false;
  /** The attempts with a WebSocket in a row that got no answer of the server. */
  #failures = 0;
  /** Whether the last attempt that ended with a status that is final without the fallback used SSE. */
  #finalWithSse: boolean | undefined;

  constructor({ webSocketAgainMs = WEB_SOCKET_AGAIN_MS }: Options, { connectTimeoutMs }: Settings) {
    this.#againMs = webSocketAgainMs;
    this.#timeoutMs = connectTimeoutMs;
  }

  open(address: URL, token: string | undefined, events: LinkEvents): Link | undefined {
    this.#isAnswered = false;
    if (this.#isFirst && Date.now() - this.#webSocketAt >= this.#againMs) this.#usesSse = false;
    this.#isFirst = this.isSecond = false;
    if (this.#usesSse) return (this.#stream = new Stream(address, token, this.#timeoutMs, events));
    this.#stream = undefined;
    this.#webSocketAt = Date.now();
    return undefined;
  }

  answered(): void {
    this.#isAnswered = true;
  }

  welcomed() {
    this.#isFirst = true;
    this.#hadWebSocket = !this.#usesSse;
    this.#failures = 0;
    return this.#usesSse ? ({ transport: "sse" } as const) : {};
  }

  late(): Partial<End> | undefined {
    if (!this.#stream?.isOpen) return undefined;
    const reason = `a proxy holds back the stream: ${this.#timeoutMs} ms after its head no event has arrived`;
    return { reason, error: new SignalboxError("buffered", reason) };
  }

  ended(end: End, wasConnected: boolean): Verdict {
    const next = verdict(end);
    const finalWithSse = this.#finalWithSse;
    this.#finalWithSse = undefined;
    if (wasConnected) return next;
    if (this.#isAnswer(end)) {
      this.#failures = 0;
      return next;
    }
    const usedSse = this.#usesSse;
    this.#usesSse = !usedSse && ++this.#failures >= (this.#hadWebSocket ? FAILURES_MAX : 1);
    this.isSecond = this.#usesSse;
    if (next !== "close") return next;
    this.#finalWithSse = usedSse;
    return finalWithSse === !usedSse ? "close" : "reconnect";
  }

  /** Whether the server itself ended the attempt, and no proxy. */
  #isAnswer({ code, status, errorCode, unsupported }: End): boolean {
    if (this.#isAnswered || code !== undefined || unsupported || status === 401) return true;
    if (this.#usesSse && ABSENT.has(status)) return false;
    return errorCode !== undefined && !STRIPPED.has(errorCode);
  }
}
