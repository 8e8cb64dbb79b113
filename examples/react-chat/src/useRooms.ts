import { useEffect, useState } from "react";

/** The rooms of the list, the one that is open, and how far each has been read. */
export interface Rooms {
  readonly names: readonly string[];
  readonly current: string | undefined;
  /** The timestamp of the last message that was read, by room. */
  readonly read: Readonly<Record<string, string>>;
}

/** Rooms that survive a reload, by user. */
export function useRooms(user: string) {
  const key = `signalbox-rooms:${user}`;
  const [rooms, setRooms] = useState<Rooms>(() => stored(key));
  useEffect(() => localStorage.setItem(key, JSON.stringify(rooms)), [key, rooms]);
  return {
    ...rooms,
    open: (name: string) =>
      setRooms(({ names, read }) => ({ names: names.includes(name) ? names : [...names, name], current: name, read })),
    leave: (name: string) =>
      setRooms(({ names, read, current }) => {
        const left = names.filter((other) => other !== name);
        return { names: left, current: current === name ? left[0] : current, read };
      }),
    markRead: (name: string, timestamp: string) =>
      setRooms((before) => {
        if ((before.read[name] ?? "") >= timestamp) return before;
        return { ...before, read: { ...before.read, [name]: timestamp } };
      }),
  };
}

function stored(key: string): Rooms {
  try {
    const found = JSON.parse(localStorage.getItem(key) ?? "null") as Rooms | null;
    if (found && Array.isArray(found.names)) return { names: found.names, current: found.current ?? found.names[0], read: found.read ?? {} };
  } catch {
    // Another program wrote it.
  }
  return { names: ["lobby"], current: "lobby", read: {} };
}
