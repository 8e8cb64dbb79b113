import { useConnection, useSignalbox } from "@signalbox/react";
import { useEffect, useState } from "react";

/** Shown while there is no connection. */
export function ConnectionBanner({ leave }: { leave: () => void }) {
  const client = useSignalbox();
  const connection = useConnection();
  const { state, retryInMs, reason, error } = connection;
  const [wasConnected, setWasConnected] = useState(false);
  const [now, setNow] = useState(0);
  const [since, setSince] = useState(0);
  if (state === "connected" && !wasConnected) setWasConnected(true);

  useEffect(() => {
    if (state !== "disconnected") return undefined;
    setSince(Date.now());
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, [state, connection]);

  if (state === "connected") return null;
  if (state === "closed") {
    if (!error) return null;
    return (
      <div className="banner bad" role="alert">
        <p>The server refuses the connection: {error.message} ({error.closeCode ?? error.code}).</p>
        <button className="quiet" onClick={leave}>Sign in again</button>
      </div>
    );
  }
  if (state === "connecting" && !wasConnected && !error) return null;
  const seconds = Math.max(0, Math.ceil(((retryInMs ?? 0) - (now - since)) / 1_000));
  return (
    <div className="banner">
      <p role="status">{error?.message ?? reason ?? "There is no connection"}. Messages wait until it is back.</p>
      {state === "disconnected" && retryInMs !== undefined && (
        <button className="quiet" onClick={() => client.connect()}>
          Try now <span aria-hidden="true" className="seconds">{seconds > 0 ? `${seconds} s` : ""}</span>
        </button>
      )}
    </div>
  );
}
