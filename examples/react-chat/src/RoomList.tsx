import { useRoom } from "@signalbox/react";
import { useEffect, useState, type FormEvent } from "react";
import { useStats } from "./stats.js";
import { usePageVisible } from "./usePageVisible.js";
import type { useRooms } from "./useRooms.js";

interface Props {
  user: string;
  rooms: ReturnType<typeof useRooms>;
  unread: Readonly<Record<string, number>>;
  count: (room: string, unread: number) => void;
}

export function RoomList({ user, rooms, unread, count }: Props) {
  const [name, setName] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const room = name.trim().replace(/^#/, "");
    if (!room) return;
    rooms.open(room);
    setName("");
  };
  return (
    <nav className="rooms" aria-label="Rooms">
      <ul>
        {rooms.names.map((room) => (
          <li key={room}>
            <button
              className="room"
              aria-current={room === rooms.current || undefined}
              onClick={() => rooms.open(room)}
            >
              <span className="name"><span aria-hidden="true" className="hash">#</span>{room}</span>
              {(unread[room] ?? 0) > 0 && (
                <span className="unread">
                  {unread[room]} <span className="hidden">unread</span>
                </span>
              )}
            </button>
            <Membership
              room={room}
              user={user}
              isCurrent={room === rooms.current}
              read={rooms.read[room]}
              markRead={rooms.markRead}
              count={count}
            />
          </li>
        ))}
      </ul>
      <form onSubmit={submit}>
        <label className="hidden" htmlFor="new-room">Name of a room</label>
        <input
          id="new-room"
          value={name}
          onChange={(event) => setName(event.target.value)}
          placeholder="Join room"
          maxLength={128}
          autoCapitalize="none"
          autoComplete="off"
          spellCheck={false}
        />
        <button className="quiet" aria-label="Join the room">+</button>
      </form>
    </nav>
  );
}

interface MembershipProps {
  room: string;
  user: string;
  isCurrent: boolean;
  read: string | undefined;
  markRead: (room: string, timestamp: string) => void;
  count: (room: string, unread: number) => void;
}

/** Keeps the user in a room of the list, and counts its unread messages. */
function Membership({ room, user, isCurrent, read = "", markRead, count }: MembershipProps) {
  const { messages, recovery } = useRoom(room, { last: 30, presence: true, types: ["chat_message"] });
  const isVisible = usePageVisible();
  const stats = useStats();
  const newest = messages.at(-1)?.timestamp;
  const unread = messages.filter(({ senderId, timestamp }) => senderId !== user && timestamp > read).length;
  useEffect(() => {
    if (isCurrent && isVisible && newest) markRead(room, newest);
  }, [isCurrent, isVisible, newest]);
  useEffect(() => count(room, unread), [room, unread]);
  useEffect(() => {
    if (recovery) stats?.recovered(recovery);
  }, [recovery, stats]);
  return null;
}
