import { Signalbox } from "@signalbox/client";
import { SignalboxProvider, type Client } from "@signalbox/react";
import { useState } from "react";
import { Chat } from "./Chat.js";
import { SignIn } from "./SignIn.js";
import { Stats, StatsContext } from "./stats.js";

const query = new URLSearchParams(location.search);
const isDebugging = query.has("debug");

/** In the session of a tab, so that two tabs can be two users. */
const KEY = "signalbox-name";

export function App() {
  const [name, setName] = useState(() => query.get("name") ?? sessionStorage.getItem(KEY) ?? "");
  if (!name) {
    return (
      <SignIn
        enter={(chosen) => {
          sessionStorage.setItem(KEY, chosen);
          setName(chosen);
        }}
      />
    );
  }
  const leave = () => {
    sessionStorage.removeItem(KEY);
    setName("");
  };
  return <Session key={name} name={name} leave={leave} />;
}

function Session({ name, leave }: { name: string; leave: () => void }) {
  const [client] = useState<Client>(() => new Signalbox({ url: serverUrl(), userId: name }));
  const [stats] = useState(() => (isDebugging ? new Stats() : undefined));
  return (
    <SignalboxProvider client={client} onError={(error) => console.warn(error.code, error.message)}>
      <StatsContext value={stats}>
        <Chat name={name} leave={leave} />
      </StatsContext>
    </SignalboxProvider>
  );
}

/** The server has the origin of the page. The debug panel shows the plugins that it names. */
function serverUrl(): string {
  const url = new URL("/ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  if (isDebugging) url.searchParams.set("trace", "plugins");
  return url.href;
}
