// Figures about the connection, shown with `?debug`.

import { element } from "./plugins.js";

const LOOK_MS = 1_000;
const MEASURE_MS = 5_000;
const LATENCIES_MAX = 20;

const FIGURES = ["State", "Recovered messages", "Gaps", "Queued messages", "Latency", "Seen by"];

export class Debug {
  #client;
  #fields;
  #recovered = 0;
  #gaps = 0;
  #latencies = [];

  /** Adds the figures to `list`. */
  constructor(list) {
    this.#fields = new Map(FIGURES.map((name) => [name, element("dd", "", "–")]));
    for (const [name, field] of this.#fields) {
      const row = element("div", "");
      row.append(element("dt", "", name), field);
      list.append(row);
    }
    this.#showReturns();
    setInterval(() => this.#show("Queued messages", this.#client?.queued ?? 0), LOOK_MS);
    setInterval(() => this.#measure(), MEASURE_MS);
  }

  /** Follows a client, and no other any more. */
  watch(client) {
    this.#client = client;
    client.on("state", ({ state, code, reason }) => {
      this.#show("State", [state, code, reason].filter(Boolean).join(", "));
      if (state === "connected") this.#measure();
    });
  }

  /** Counts the outcome of a return to a history. */
  recovered({ recovered, count = 0 }) {
    if (recovered) this.#recovered += count;
    else this.#gaps += 1;
    this.#showReturns();
  }

  /** Shows the plugins that saw a message. */
  answered({ plugins }) {
    const names = plugins?.map(({ name, version, sha256 }) => [name, version, sha256].filter(Boolean).join(" "));
    this.#show("Seen by", names ? names.join(", ") || "no plugin" : "set server.trace_plugins");
  }

  async #measure() {
    if (this.#client?.state !== "connected") return;
    const began = performance.now();
    try {
      await this.#client.send("heartbeat");
    } catch {
      // The connection was lost.
      return;
    }
    this.#latencies = [...this.#latencies, performance.now() - began].slice(-LATENCIES_MAX);
    const sorted = [...this.#latencies].sort((a, b) => a - b);
    const [last, median, max] = [this.#latencies.at(-1), sorted[sorted.length >> 1], sorted.at(-1)].map((ms) => ms.toFixed(1));
    this.#show("Latency", `${last} ms (median ${median}, max ${max})`);
  }

  #showReturns() {
    this.#show("Recovered messages", this.#recovered);
    this.#show("Gaps", this.#gaps);
  }

  #show(name, text) {
    this.#fields.get(name).textContent = text;
  }
}
