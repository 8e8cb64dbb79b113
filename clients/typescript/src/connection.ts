import { backoffMs } from "./backoff.js";
import { callbackReason, Credentials, isFinal } from "./credentials.js";
import { SignalboxError } from "./errors.js";
import { isObject, parseFrame, type Welcome } from "./frames.js";
import { Liveness } from "./liveness.js";
import { watchPlatform } from "./platform.js";
import { Socket } from "./socket.js";
import type { Link, LinkEvents, Route } from "./transport.js";
import type { Options, ServerFrame, Settings, State, StateChange, WebSocketClass } from "./types.js";
import { verdict, type End } from "./verdict.js";

/** An event of the platform ends the wait for an attempt at most this often. */
const WAKE_INTERVAL_MS = 5_000;

/** The reports of a connection, in the order in which they happen. */
export interface ConnectionEvents {
  /** The pairs to add to the query of the next attempt. */
  query(): Readonly<Record<string, string>>;
  /** The connection is there; `changed` follows. */
  greeted(welcome: Welcome): void;
  /** `changed` has reported the connection. */
  welcomed(welcome: Welcome): void;
  frame(frame: ServerFrame): void;
  /** The connection is gone; `changed` follows. */
  lost(): void;
  changed(change: StateChange): void;
  /** An error that belongs to no call. */
  failed(error: SignalboxError): void;
}

/** The state machine: attempts, waits between them, and the connection. */
export class Connection {
  readonly credentials: Credentials;
  readonly #options: Options;
  readonly #settings: Settings;
  readonly #events: ConnectionEvents;
  readonly #route: Route | undefined;
  #state: State = "disconnected";
  #link: Link | undefined;
  #liveness: Liveness | undefined;
  #unwatch: (() => void) | undefined;
  /** The end of the attempt, or of the wait for the next one. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The number of the attempt: reports of an earlier one are ignored. */
  #current = 0;
  #failures = 0;
  #connectedAt = 0;
  #wokenAt = -Infinity;

  constructor(options: Options, settings: Settings, events: ConnectionEvents) {
    this.#options = options;
    this.#settings = settings;
    this.#events = events;
    this.#route = options.fallback?.(options, settings);
    this.credentials = new Credentials(options.token, settings.tokenTimeoutMs);
  }

  get state(): State {
    return this.#state;
  }

  connect(): void {
    if (this.#state === "connecting" || this.#state === "connected") return;
    if (this.#state === "closed") this.#failures = 0;
    this.#unwatch ??= watchPlatform({
      likely: () => this.#wake(),
      paused: () => this.#liveness?.paused(),
    });
    this.#attempt();
  }

  close(): void {
    if (this.#state !== "closed") this.#close({});
  }

  /** Ends everything because of `error`. */
  fail(error: SignalboxError): void {
    this.#close({ reason: error.message }, error);
  }

  /** Sends a frame; only while connected. */
  send(text: string): void {
    this.#link?.send(text);
  }

  /** Ends the connection and makes a new one. */
  reconnect(reason: string): void {
    this.#ended({ reason });
  }

  #attempt(): void {
    const current = this.#begin();
    this.#change({ state: "connecting" });
    if (current !== this.#current) return;
    const isCurrent = () => current === this.#current;
    this.credentials.get().then(
      (token) => isCurrent() && this.#open(token, current),
      (error: unknown) => isCurrent() && this.#withoutToken(error),
    );
  }

  /** Ends all that belongs to the attempt before, and begins another, or a state without one. */
  #begin(): number {
    clearTimeout(this.#timer);
    this.#liveness?.stop();
    this.#timer = this.#liveness = this.#link = undefined;
    return ++this.#current;
  }

  #open(token: string | undefined, current: number): void {
    const { url, userId } = this.#options;
    const events = this.#only(current, {
      frame: (text: string) => this.#received(text),
      heard: () => this.#liveness?.heard(),
      refused: (payload: object) => this.#events.frame({ type: "error", payload }),
      ended: (end: End) => this.#ended(end),
    });
    const timeoutMs = this.#settings.connectTimeoutMs;
    const late = () => this.#ended({ reason: `no connection after ${timeoutMs} ms`, ...this.#route?.late() });
    this.#timer = setTimeout(late, timeoutMs);
    try {
      const address = new URL(url);
      const query = { ...(userId !== undefined && { userId }), ...this.#events.query() };
      for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
      this.#link = this.#route?.open(address, token, events) ?? this.#webSocket(address, token, events);
    } catch (error) {
      // Another attempt would fail in the same way.
      this.#close({ reason: String(error) }, new SignalboxError("refused", String(error), { cause: error }));
    }
  }

  #webSocket(address: URL, token: string | undefined, events: LinkEvents): Link {
    const Class = (this.#options.WebSocket ?? globalThis.WebSocket) as WebSocketClass | undefined;
    if (!Class) throw new Error("this platform has no WebSocket: give one as the option `WebSocket`");
    return new Socket(Class, address, token, events);
  }

  /** Ignores the events of an attempt that is over. */
  #only<T extends object>(current: number, events: T): T {
    const guarded = Object.entries(events).map(([name, callback]: [string, (value: unknown) => void]) => [
      name,
      (value: unknown) => current === this.#current && callback(value),
    ]);
    return Object.fromEntries(guarded) as T;
  }

  #received(text: string): void {
    this.#liveness?.heard();
    this.#route?.answered();
    const frame = parseFrame(text);
    if (!frame) {
      this.#events.failed(new SignalboxError("invalid_frame", `not a frame: ${text.slice(0, 100)}`));
    } else if (this.#state === "connected") {
      this.#events.frame(frame);
    } else if (frame.type === "welcome" && isObject(frame.payload)) {
      this.#welcomed(frame.payload as unknown as Welcome);
    } else {
      this.#events.failed(new SignalboxError("invalid_frame", `${frame.type} came before welcome`));
    }
  }

  #welcomed(welcome: Welcome): void {
    clearTimeout(this.#timer);
    this.#connectedAt = Date.now();
    this.credentials.accepted();
    const { heartbeatMs, heartbeatTimeoutMs } = this.#settings;
    const actions = {
      probe: () => this.send(`{"type":"heartbeat","id":"heartbeat"}`),
      lost: () => this.#ended({ reason: "the server does not answer" }),
    };
    const interval = heartbeatMs ?? (Number(welcome.heartbeatIntervalMs) || 25_000);
    this.#liveness = new Liveness(actions, interval, heartbeatTimeoutMs);
    const current = this.#current;
    this.#events.greeted(welcome);
    this.#change({ state: "connected", ...this.#route?.welcomed() });
    if (current === this.#current) this.#events.welcomed(welcome);
  }

  /** An attempt failed, or the connection was lost. */
  #ended(end: End): void {
    const wasConnected = this.#state === "connected";
    if (wasConnected && Date.now() - this.#connectedAt >= this.#settings.stableAfterMs) this.#failures = 0;
    const next = this.#route?.ended(end, wasConnected) ?? verdict(end);
    if (next === "close" || (next === "renew" && !this.credentials.renewable)) {
      this.#close(end, refusal(end));
    } else if (next === "renew" && !this.credentials.refused()) {
      this.#close(end, new SignalboxError("unauthorized", end.reason ?? "the server refuses every token", detailsOf(end)));
    } else {
      this.#retry(end, end.error);
    }
  }

  #withoutToken(error: unknown): void {
    const reason = callbackReason(error);
    if (isFinal(error)) this.fail(new SignalboxError("unauthorized", reason, { cause: error }));
    else this.#retry({ reason }, new SignalboxError("token_failed", reason, { cause: error }));
  }

  #retry(end: End, error?: SignalboxError): void {
    const failures = this.#failures++;
    const wait = backoffMs(this.#route?.isSecond ? 0 : failures, this.#settings.backoff);
    const retryInMs = Math.max(wait, end.retryAfterMs ?? 0);
    this.#leave("disconnected");
    this.#timer = setTimeout(() => this.#attempt(), retryInMs);
    const current = this.#current;
    this.#change({ state: "disconnected", ...detailsOfChange(end), retryInMs });
    if (error && current === this.#current) this.#events.failed(error);
  }

  #close(end: End, error?: SignalboxError): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.credentials.reset();
    this.#leave("closed");
    const current = this.#current;
    this.#change({ state: "closed", ...detailsOfChange(end) });
    if (error && current === this.#current) this.#events.failed(error);
  }

  /** Ends the attempt or connection. */
  #leave(state: "disconnected" | "closed"): void {
    const link = this.#link;
    const wasConnected = this.#state === "connected";
    this.#begin();
    if (state === "closed") link?.close();
    else link?.drop();
    this.#state = state;
    if (wasConnected || state === "closed") this.#events.lost();
  }

  #change(change: StateChange): void {
    this.#state = change.state;
    this.#events.changed(change);
  }

  /** Ends the wait for the next attempt, but not too often. */
  #wake(): void {
    if (this.#state !== "disconnected" || Date.now() - this.#wokenAt < WAKE_INTERVAL_MS) return;
    this.#wokenAt = Date.now();
    this.#attempt();
  }
}

function refusal(end: End): SignalboxError {
  if (end.unsupported) {
    return new SignalboxError("unsupported_protocol", "the server does not speak signalbox.v1");
  }
  const how = end.status === undefined ? `close code ${end.code}` : `HTTP status ${end.status}`;
  const code = verdict(end) === "renew" ? "unauthorized" : "refused";
  return new SignalboxError(code, end.reason ?? `the server refuses the connection with ${how}`, detailsOf(end));
}

function detailsOf({ code, status }: End) {
  return { closeCode: code, status };
}

function detailsOfChange({ code, status, reason }: End) {
  return {
    ...(code !== undefined && { code }),
    ...(status !== undefined && { status }),
    ...(reason !== undefined && { reason }),
  };
}
