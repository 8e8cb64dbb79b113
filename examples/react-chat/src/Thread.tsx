import { useRoom, useSignalbox } from "@signalbox/react";
import { useEffect, useRef } from "react";
import { Composer } from "./Composer.js";
import { Members } from "./Members.js";
import { Messages } from "./Messages.js";
import { useStats } from "./stats.js";
import { useTyping } from "./useTyping.js";

interface Props {
  room: string;
  user: string;
  leave: (room: string) => void;
}

/** The open room. */
export function Thread({ room: name, user, leave }: Props) {
  const room = useRoom(name, { last: 30, presence: true, types: ["chat_message"] });
  const client = useSignalbox();
  const stats = useStats();
  const typing = useTyping(name, user);
  const main = useRef<HTMLElement>(null);
  useEffect(() => {
    // On a phone the keyboard would hide the messages.
    if (matchMedia("(pointer: fine)").matches) main.current?.querySelector("textarea")?.focus();
  }, []);

  const send = async (text: string) => {
    const isMe = text.startsWith("/me ");
    typing.sent();
    const wasConnected = client.state === "connected";
    const began = performance.now();
    const answer = await (isMe ? room.post("chat.me", { text: text.slice(4) }) : room.post("chat_message", { text }));
    if (!answer || !stats) return;
    stats.answered(answer);
    if (wasConnected) stats.measured(performance.now() - began);
  };

  return (
    <>
      <main className="thread" ref={main} aria-labelledby="thread-title">
        <div className="title">
          <h2 id="thread-title"><span aria-hidden="true" className="hash">#</span>{name}</h2>
          <button className="quiet small" onClick={() => leave(name)}>Leave<span className="hidden"> {name}</span></button>
        </div>
        {room.status === "ended" && (
          <div className="banner bad" role="alert">
            <p>You are not in this room: {room.error?.message} ({room.error?.code}).</p>
            <button className="quiet" onClick={room.rejoin}>Join again</button>
          </div>
        )}
        <Messages room={room} user={user} />
        <p className="typing">{sentence(typing.names)}</p>
        <Composer room={name} send={(text) => void send(text)} typed={typing.say} disabled={room.status === "ended"} />
      </main>
      <Members members={room.members} total={room.total} user={user} />
    </>
  );
}

function sentence(names: readonly string[]): string {
  if (names.length === 0) return "";
  if (names.length > 3) return "Several people are typing …";
  return `${new Intl.ListFormat("en").format(names)} ${names.length === 1 ? "is" : "are"} typing …`;
}
