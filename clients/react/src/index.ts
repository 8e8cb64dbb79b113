export type { ConnectionState, OnError } from "./connection.js";
export {
  useConnection,
  useEvent,
  usePresence,
  useRequest,
  useRoom,
  type UsePresence,
  type UseRequest,
  type UseRoom,
  type UseRoomOptions,
} from "./hooks.js";
export { SignalboxProvider, useSignalbox, type Client, type SignalboxProviderProps } from "./provider.js";
export type { RoomSnapshot } from "./roomStore.js";
export type { Events, EventType, PendingMessage, Register, Requests, RoomMessage } from "./types.js";
