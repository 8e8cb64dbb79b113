import type { Options, Settings } from "./types.js";
import type { End, Verdict } from "./verdict.js";

/** The reports of a link. Nothing follows `ended`. */
export interface LinkEvents {
  /** A frame arrived. */
  frame(text: string): void;
  /** Something else arrived. */
  heard(): void;
  /** A frame of the client was not taken: the payload of an `error`, which did not come from the server. */
  refused(payload: object): void;
  ended(end: End): void;
}

/** One attempt to connect, and the connection that may come of it. */
export interface Link {
  send(text: string): void;
  /** Ends the connection at the request of the application. */
  close(): void;
  /** Ends the connection at once, or as soon as the platform allows it. */
  drop(): void;
}

/** The way of each attempt of a client with a fallback. */
export interface Route {
  /** Whether the next attempt follows one with the other transport, and belongs to it: it has a short wait. */
  readonly isSecond: boolean;
  /** Opens the next attempt; `undefined` if it uses a WebSocket. */
  open(address: URL, token: string | undefined, events: LinkEvents): Link | undefined;
  /** A frame arrived. */
  answered(): void;
  /** The attempt has become a connection. Returns the additions to the change of the state. */
  welcomed(): { readonly transport?: "sse" };
  /** The time of the attempt is over. Returns what is known about the reason. */
  late(): Partial<End> | undefined;
  /** The attempt or the connection ended. */
  ended(end: End, wasConnected: boolean): Verdict;
}

/** A transport for networks that block WebSockets: `sse` of `@signalbox/client/sse`. */
export type Fallback = (options: Options, settings: Settings) => Route;
