import { useConnection } from "@signalbox/react";
import { useEffect, useState } from "react";
import { ConnectionBanner } from "./ConnectionBanner.js";
import { Debug } from "./Debug.js";
import { RoomList } from "./RoomList.js";
import { useStats } from "./stats.js";
import { Thread } from "./Thread.js";
import { useRooms } from "./useRooms.js";

const STATES = { connected: "Connected", connecting: "Connecting …", disconnected: "Offline", closed: "Disconnected" };

export function Chat({ name, leave }: { name: string; leave: () => void }) {
  const { state } = useConnection();
  const stats = useStats();
  const rooms = useRooms(name);
  const [unread, setUnread] = useState<Readonly<Record<string, number>>>({});
  const total = rooms.names.reduce((sum, room) => sum + (unread[room] ?? 0), 0);
  useEffect(() => {
    document.title = `${total > 0 ? `(${total}) ` : ""}${rooms.current ? `#${rooms.current} – ` : ""}Signalbox chat`;
  }, [total, rooms.current]);
  return (
    <div className="app">
      <a className="skip" href="#composer">Skip to the message field</a>
      <header className="top">
        <img src="/icon.svg" alt="" width="26" height="26" />
        <h1>Signalbox</h1>
        <p className="state" data-state={state} role="status">
          <span className="dot" aria-hidden="true" />
          {STATES[state]}
        </p>
        <button className="quiet" onClick={leave} title="Sign out">
          {name} <span className="hidden">– sign out</span>
          <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true"><path d="M6 2H3v12h3M7 8h7m-3-3 3 3-3 3" fill="none" stroke="currentColor" strokeWidth="1.6" /></svg>
        </button>
      </header>
      <ConnectionBanner leave={leave} />
      <div className="columns">
        <RoomList
          user={name}
          rooms={rooms}
          unread={unread}
          count={(room, value) => setUnread((before) => (before[room] === value ? before : { ...before, [room]: value }))}
        />
        {rooms.current ? (
          <Thread key={rooms.current} room={rooms.current} user={name} leave={rooms.leave} />
        ) : (
          <main className="thread">
            <p className="empty">Join a room to chat.</p>
          </main>
        )}
      </div>
      {stats && <Debug stats={stats} />}
    </div>
  );
}
