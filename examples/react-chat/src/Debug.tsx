import { useConnection, useSignalbox } from "@signalbox/react";
import { useEffect, useState, type ReactNode } from "react";
import { useFigures, type Stats } from "./stats.js";

const MEASURED_EVERY_MS = 5_000;

/** Shown with `?debug`. */
export function Debug({ stats }: { stats: Stats }) {
  const client = useSignalbox();
  const { state, code, reason } = useConnection();
  const { connections, recovered, gaps, latenciesMs, plugins, isTraced } = useFigures(stats);

  useEffect(() => client.on("state", (change) => stats.changed(change.state)), [client, stats]);
  useEffect(() => {
    if (state !== "connected") return undefined;
    const measure = async () => {
      const began = performance.now();
      await client.send("heartbeat").then(() => stats.measured(performance.now() - began), () => {});
    };
    void measure();
    const timer = setInterval(() => void measure(), MEASURED_EVERY_MS);
    return () => clearInterval(timer);
  }, [client, state, stats]);

  // The queue reports no changes.
  const [, setTurn] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTurn((before) => before + 1), 1_000);
    return () => clearInterval(timer);
  }, []);

  const sorted = [...latenciesMs].sort((a, b) => a - b);
  return (
    <details className="debug" open>
      <summary>Debug</summary>
      <dl>
        <Figure name="State">{state}{state !== "connected" && (code || reason) ? ` (${[code, reason].filter(Boolean).join(", ")})` : ""}</Figure>
        <Figure name="Node">{client.session?.nodeId ?? "–"}</Figure>
        <Figure name="Reconnects">{Math.max(0, connections - 1)}</Figure>
        <Figure name="Recovered messages">{recovered}</Figure>
        <Figure name="Gaps">{gaps}</Figure>
        <Figure name="Queued">{client.queued}</Figure>
        <Figure name="Latency">
          {sorted.length === 0 ? "–" : `${ms(latenciesMs.at(-1))} (median ${ms(sorted[sorted.length >> 1])}, max ${ms(sorted.at(-1))})`}
        </Figure>
        <Figure name="Plugins">
          {plugins.map(({ name, version, sha256 }) => (
            <code key={name}>{[name, version, sha256].filter(Boolean).join(" ")}</code>
          ))}
          {plugins.length === 0 && (isTraced === undefined ? "send a message" : isTraced ? "none" : "set server.trace_plugins")}
        </Figure>
      </dl>
    </details>
  );
}

function Figure({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function ms(value = 0): string {
  return `${value.toFixed(1)} ms`;
}
