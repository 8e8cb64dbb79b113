import type { SignalboxError } from "./errors.js";
import type { Fallback } from "./transport.js";

/** The state of a client. */
export type State = "disconnected" | "connecting" | "connected" | "closed";

/** A change of the state. */
export interface StateChange {
  readonly state: State;
  /** The code with which the connection was closed. */
  readonly code?: number;
  /** The HTTP status of a refusal, if the platform lets the client read it. */
  readonly status?: number;
  /** The reason, for people. */
  readonly reason?: string;
  /** The time until the next attempt. */
  readonly retryInMs?: number;
  /** With `connected`: `sse` if the connection uses the fallback. */
  readonly transport?: "sse";
}

/** A message as it arrived. */
export interface Message<T = unknown> {
  readonly type: string;
  readonly payload: T;
  /** The sender's user ID; empty for a message from the platform. */
  readonly senderId: string;
  /** The receiver's user ID; empty for a message to a room or to everyone. */
  readonly receiverId: string;
  /** The time at which the server took the message, in UTC: `2026-01-31T12:00:00.000000Z`. */
  readonly timestamp: string;
  /** The room to which it was sent. */
  readonly room?: string;
  /** Present if the sender asked for an answer. */
  readonly messageId?: string;
  /** Its number in the history of the room or of the user. */
  readonly offset?: number;
}

/** The result of a call. */
export interface Answer<T = unknown> {
  /**
   * `delivered`: queued for a connection of the receiver. `offline`: nobody has the receiver. `kept`: it waits in a history.
   * `handled`: the server or a plugin handled it.
   */
  readonly status: "delivered" | "offline" | "kept" | "handled";
  /** The data of a plugin that answers requests. */
  readonly data: T | undefined;
  /** Whether this repeats the answer to the same message, which was not sent again. */
  readonly duplicate: boolean;
  /** The ID that the message has for its receivers, and in the echo that a room sends back. */
  readonly messageId: string;
  /** The plugins that saw the message, if the URL asks with `trace=plugins` and the server allows it. */
  readonly plugins?: readonly PluginVersion[];
}

/** A plugin that saw a message. */
export interface PluginVersion {
  readonly name: string;
  /** The version in the component's metadata. */
  readonly version: string | null;
  /** The first twelve digits of the component's SHA-256. */
  readonly sha256: string;
}

/** The server's words about a connection. */
export interface Session {
  /** The client's own user ID, also if it comes from a token. */
  readonly userId: string;
  readonly connectionId: string;
  readonly nodeId: string;
}

/** Where a message goes, and how. */
export interface SendOptions {
  /** The receiver's user ID. */
  readonly to?: string;
  /** The room, of which the client is a member. */
  readonly room?: string;
  /** Sends the message again if its answer was lost. The server acts once. */
  readonly once?: boolean;
}

/**
 * Returns a token. To end the client for good, for example after a logout, throw an error with `final: true`. `signal` is
 * aborted if the token is no longer wanted.
 */
export type TokenCallback = (signal: AbortSignal) => string | Promise<string>;

/** The part of the standard `WebSocket` that the client uses. The class of the package `ws` has it too. */
export interface WebSocketLike {
  binaryType: string;
  readonly protocol: string;
  /** Called once the upgrade is accepted. */
  onopen: ((event: never) => void) | null;
  /** Called with each message. */
  onmessage: ((event: never) => void) | null;
  /** Called at the end of the connection or of the attempt. */
  onclose: ((event: never) => void) | null;
  /** Called before that if something failed. */
  onerror: ((event: never) => void) | null;
  /** Sends a text message. */
  send(text: string): void;
  /** Begins the end of the connection. */
  close(code?: number, reason?: string): void;
}

/** The class of a WebSocket. */
export type WebSocketClass = new (url: string, protocols: string[], options?: object) => WebSocketLike;

/** Settings of a client. Times are in milliseconds. */
export interface Options {
  /** The server's WebSocket, such as `wss://example.com/ws`. */
  readonly url: string;
  /** The user ID, for `auth.mode = "none"`. */
  readonly userId?: string;
  /** A token, or a callback that returns one, for `auth.mode = "jwt"`. */
  readonly token?: string | TokenCallback;
  /** The class of the WebSocket; by default the platform's. In Node 20 give the one of the package `ws`. */
  readonly WebSocket?: unknown;
  /** `sse` of `@signalbox/client/sse`, for networks that block WebSockets; by default there are WebSockets alone. */
  readonly fallback?: Fallback;
  /** Time after which a client that uses the fallback tries a WebSocket again when it reconnects; 10 minutes by default. */
  readonly webSocketAgainMs?: number;
  /** Time for the connection, the upgrade and the server's first frame; 10 s by default. */
  readonly connectTimeoutMs?: number;
  /** The longest wait before the first attempt after a loss; 500 ms by default. It doubles with each attempt. */
  readonly backoffMinMs?: number;
  /** The longest wait before any attempt; 20 s by default. */
  readonly backoffMaxMs?: number;
  /** Time after which a connection counts as good, and the backoff starts again; 5 s by default. */
  readonly stableAfterMs?: number;
  /** Time for the answer to a call, from when it was sent; 10 s by default. */
  readonly answerTimeoutMs?: number;
  /** Time for the token callback; 30 s by default. */
  readonly tokenTimeoutMs?: number;
  /** Silence after which the client asks whether the server is there; by default the time that the server gives. */
  readonly heartbeatMs?: number;
  /** Time for an answer to that; 10 s by default. */
  readonly heartbeatTimeoutMs?: number;
  /** Whether a message that cannot be sent now waits in the queue (the default), or fails with `offline`. */
  readonly offline?: "queue" | "error";
  /** The most messages in the queue; 100 by default. */
  readonly queueMax?: number;
  /** The most bytes in the queue; 256 KiB by default. */
  readonly queueBytesMax?: number;
}

/** All settings, with the defaults for those that are absent. */
export type Settings = ReturnType<typeof settingsOf>;

/** Fills in the defaults. */
export function settingsOf(options: Options) {
  return {
    connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
    backoff: { minMs: options.backoffMinMs ?? 500, maxMs: options.backoffMaxMs ?? 20_000 },
    stableAfterMs: options.stableAfterMs ?? 5_000,
    answerTimeoutMs: options.answerTimeoutMs ?? 10_000,
    tokenTimeoutMs: options.tokenTimeoutMs ?? 30_000,
    heartbeatMs: options.heartbeatMs,
    heartbeatTimeoutMs: options.heartbeatTimeoutMs ?? 10_000,
    offline: options.offline ?? "queue",
    queueMax: options.queueMax ?? 100,
    queueBytesMax: options.queueBytesMax ?? 256 * 1024,
  };
}

/** A frame that the client sends. */
export interface ClientFrame {
  readonly type: string;
  readonly payload?: unknown;
  readonly receiverId?: string;
  readonly room?: string;
  readonly once?: true;
}

/** A frame of the server before its fields are checked. */
export interface ServerFrame {
  readonly type: string;
  readonly payload?: unknown;
  readonly senderId?: unknown;
  readonly receiverID?: unknown;
  readonly timestamp?: unknown;
  readonly room?: string;
  readonly messageId?: string;
  readonly offset?: number;
}

/** Gets the errors that belong to no call. */
export type Report = (error: SignalboxError) => void;
