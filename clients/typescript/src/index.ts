export { Signalbox, type ClientEvents, type DataOf, type PayloadOf, type Requests } from "./client.js";
export type { Unsubscribe } from "./emitter.js";
export { SignalboxError, type ClientErrorCode, type ErrorDetails } from "./errors.js";
export type { Recovery } from "./position.js";
export type { Member, Presence } from "./presence.js";
export type { History, HistoryOptions, Joined, JoinOptions, Room, RoomEvents } from "./room.js";
export type { Fallback } from "./transport.js";
export type {
  Answer,
  Message,
  Options,
  PluginVersion,
  SendOptions,
  Session,
  State,
  StateChange,
  TokenCallback,
  WebSocketClass,
  WebSocketLike,
} from "./types.js";
