import type { PendingMessage, UseRoom } from "@signalbox/react";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { Avatar } from "./Avatar.js";
import { GAPS, isMe, textOf, type ChatMessage } from "./messages.js";

interface Props {
  room: UseRoom<"chat_message">;
  user: string;
}

/** Messages of one sender within this time have one heading. */
const GROUP_MS = 5 * 60_000;
/** So near to an end, the list counts as scrolled to it. */
const NEAR_PX = 80;

export function Messages({ room, user }: Props) {
  const { messages, pending, hasOlder, loadOlder, loadingOlder, olderError, status } = room;
  const list = useRef<HTMLDivElement>(null);
  /** The distance of the view from the end of the list, which stays if older messages come. */
  const fromEnd = useRef(0);
  const isAtEnd = useRef(true);
  const top = useRef(0);
  const [isBelow, setIsBelow] = useState(false);
  const newest = messages.at(-1)?.key;
  const own = pending.at(-1)?.key;

  const toEnd = () => {
    const element = list.current;
    if (element) element.scrollTop = element.scrollHeight;
  };
  const scrolled = () => {
    const element = list.current;
    if (!element) return;
    fromEnd.current = element.scrollHeight - element.scrollTop;
    isAtEnd.current = fromEnd.current - element.clientHeight < NEAR_PX;
    if (isAtEnd.current) setIsBelow(false);
    const isUpwards = element.scrollTop < top.current && !isAtEnd.current;
    top.current = element.scrollTop;
    if (isUpwards && top.current < NEAR_PX && hasOlder && !loadingOlder && !olderError) void loadOlder();
  };
  const first = messages[0]?.key;
  useLayoutEffect(() => {
    const element = list.current;
    if (element && !isAtEnd.current) element.scrollTop = element.scrollHeight - fromEnd.current;
  }, [first]);
  useLayoutEffect(() => {
    if (isAtEnd.current) toEnd();
    else if (newest) setIsBelow(true);
  }, [newest, pending.length]);
  // The user has sent something, and wants to see it.
  useLayoutEffect(() => {
    if (own) toEnd();
  }, [own]);
  useEffect(() => {
    const element = list.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => isAtEnd.current && toEnd());
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const isEmpty = messages.length === 0 && pending.length === 0;
  return (
    <div className="scroller">
      <div className="messages" ref={list} onScroll={scrolled} tabIndex={0} role="region" aria-label="Messages" aria-busy={loadingOlder}>
        {hasOlder && (
          <button className="quiet small older" onClick={() => void loadOlder()} disabled={loadingOlder}>
            {loadingOlder ? "Loading …" : "Earlier messages"}
          </button>
        )}
        {olderError && <p className="notice bad" role="alert">Earlier messages cannot be read now: {olderError.message}.</p>}
        {isEmpty && (
          <p className="empty">{status === "joined" ? "Nobody has said anything here yet. Say hello!" : status === "joining" ? "Joining …" : ""}</p>
        )}
        <ol>
          {messages.map((message, index) => (
            <Line key={message.key} message={message} before={messages[index - 1]} user={user} />
          ))}
          {pending.map((message) => (
            <PendingLine key={message.key} message={message} />
          ))}
        </ol>
      </div>
      <Announcer messages={messages} user={user} />
      {isBelow && (
        <button className="below" onClick={toEnd}>New messages ↓</button>
      )}
    </div>
  );
}

function Line({ message, before, user }: { message: ChatMessage; before: ChatMessage | undefined; user: string }) {
  const { senderId, payload, timestamp, gapAfter } = message;
  const isOwn = senderId === user;
  const isContinued =
    before !== undefined &&
    before.gapAfter === undefined &&
    before.senderId === senderId &&
    Date.parse(timestamp) - Date.parse(before.timestamp) < GROUP_MS;
  return (
    <>
      <li className={`message${isOwn ? " own" : ""}${isContinued ? " continued" : ""}`}>
        {!isOwn && !isContinued && <Avatar name={senderId} />}
        <p className={isContinued ? "who hidden" : "who"}>
          <b>{isOwn ? "You" : senderId || "Signalbox"}</b> <Time of={timestamp} />
        </p>
        <p className={isMe(payload) ? "what me" : "what"}>{textOf(payload)}</p>
      </li>
      {gapAfter !== undefined && <li className="notice gap">{GAPS[gapAfter] ?? GAPS["expired"]}.</li>}
    </>
  );
}

function PendingLine({ message }: { message: PendingMessage }) {
  const { payload, status, error, retry, discard } = message;
  return (
    <li className={`message own pending ${status}`}>
      <p className="who hidden">You</p>
      <p className="what">{textOf(payload)}</p>
      {error ? (
        <div className="fate" role="alert">
          <p>
            Not sent: {error.message}
            {error.plugin && ` (refused by the plugin ${error.plugin})`}.
          </p>
          <span>
            <button className="link" onClick={retry}>Try again</button>
            <button className="link" onClick={discard}>Discard</button>
          </span>
        </div>
      ) : (
        <p className="fate">Sending …</p>
      )}
    </li>
  );
}

function Time({ of }: { of: string }) {
  const at = new Date(of);
  if (Number.isNaN(at.getTime())) return null;
  const isToday = at.toDateString() === new Date().toDateString();
  const text = at.toLocaleString(undefined, isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
  return <time dateTime={of}>{text}</time>;
}

/** Reads new messages of others aloud, and neither old ones nor the whole list. */
function Announcer({ messages, user }: { messages: readonly ChatMessage[]; user: string }) {
  const [since] = useState(() => new Date().toISOString());
  const news = messages.filter(({ senderId, timestamp }) => senderId !== user && timestamp > since).slice(-3);
  return (
    <div className="hidden" role="log" aria-label="New messages">
      {news.map(({ key, senderId, payload }) => (
        <p key={key}>{senderId}: {textOf(payload)}</p>
      ))}
    </div>
  );
}
