import { useConnection, useEvent, useSignalbox } from "@signalbox/react";
import { useEffect, useRef, useState } from "react";

/** How long somebody is shown as typing, and how often the page says that its user types. */
const SHOWN_MS = 5_000;
const SAID_EVERY_MS = 3_000;
/** An event that is older comes from the history. */
const OLD_MS = 10_000;

/** Who is typing in a room, and a function that says that this user does. */
export function useTyping(room: string, user: string) {
  const client = useSignalbox();
  const { state } = useConnection();
  const [typing, setTyping] = useState<Readonly<Record<string, number>>>({});
  const saidAt = useRef(0);

  useEvent(
    "chat.typing",
    ({ senderId, timestamp }) => {
      if (senderId === user || Date.now() - Date.parse(timestamp) > OLD_MS) return;
      setTyping((before) => ({ ...before, [senderId]: Date.now() + SHOWN_MS }));
    },
    { room },
  );
  useEvent("chat_message", ({ senderId }) => setTyping(({ [senderId]: _, ...others }) => others), { room });

  const next = Math.min(...Object.values(typing));
  useEffect(() => {
    if (next === Infinity) return undefined;
    const expire = () => setTyping((before) => Object.fromEntries(Object.entries(before).filter(([, until]) => until > Date.now())));
    const timer = setTimeout(expire, Math.max(next - Date.now(), 0) + 1);
    return () => clearTimeout(timer);
  }, [next]);

  const say = () => {
    if (state !== "connected" || Date.now() - saidAt.current < SAID_EVERY_MS) return;
    saidAt.current = Date.now();
    // Nobody misses it if it fails.
    client.send("chat.typing", { typing: true }, { room }).catch(() => {});
  };
  const sent = () => {
    saidAt.current = 0;
  };
  return { names: Object.keys(typing), say, sent };
}
