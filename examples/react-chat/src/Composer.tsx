import { useState, type FormEvent, type KeyboardEvent } from "react";

interface Props {
  room: string;
  send: (text: string) => void;
  typed: () => void;
  disabled: boolean;
}

/** Enter sends, and Shift+Enter begins a line. */
export function Composer({ room, send, typed, disabled }: Props) {
  const [text, setText] = useState("");
  const submit = (event?: FormEvent) => {
    event?.preventDefault();
    if (!text || disabled) return;
    send(text);
    setText("");
  };
  const pressed = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit();
  };
  return (
    <form className="composer" onSubmit={submit}>
      <label className="hidden" htmlFor="composer">Message to {room}</label>
      <textarea
        id="composer"
        value={text}
        rows={1}
        placeholder={`Message #${room}`}
        enterKeyHint="send"
        disabled={disabled}
        onKeyDown={pressed}
        onChange={({ target }) => {
          setText(target.value);
          if (target.value) typed();
        }}
      />
      <button disabled={disabled || !text} aria-label="Send">
        <svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true"><path d="M10 16V4M4.5 9.5 10 4l5.5 5.5" fill="none" stroke="currentColor" strokeWidth="2" strokeLinecap="round" strokeLinejoin="round" /></svg>
      </button>
    </form>
  );
}
