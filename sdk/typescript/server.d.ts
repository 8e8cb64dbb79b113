// The functions of the server, under the names by which a component imports them. index.js wraps them.

declare module "signalbox:plugin/log@1.0.0" {
  const log: { write(level: "debug" | "info" | "warn" | "error", line: string): void };
  export default log;
}

declare module "signalbox:plugin/context@1.0.0" {
  import type { Client } from "@signalbox/plugin";
  const context: { currentClient(): Client | null; node(): string; now(): number; random(): number };
  export default context;
}

declare module "signalbox:plugin/store@1.0.0" {
  const store: {
    get(key: string): Uint8Array | null;
    set(key: string, value: Uint8Array, ttlSeconds: number | null): void;
    remove(key: string): void;
    increment(key: string, by: number, ttlSeconds: number | null): number;
    compareAndSwap(key: string, expected: Uint8Array | null, value: Uint8Array, ttlSeconds: number | null): boolean;
  };
  export default store;
}

declare module "signalbox:plugin/room-state@1.0.0" {
  import type { KeptMessage, Member } from "@signalbox/plugin";
  const roomState: {
    count(room: string): number;
    members(room: string): Member[];
    history(room: string, before: number | null, limit: number): KeptMessage[];
  };
  export default roomState;
}

declare module "signalbox:plugin/metrics@1.0.0" {
  const metrics: { count(name: string, by: number): void; observe(name: string, value: number): void };
  export default metrics;
}
