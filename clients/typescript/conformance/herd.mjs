// Many clients in one process, for the herd of clients/conformance/README.md.
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { Signalbox } from "../dist/index.js";

const clients = [];
const reports = [];

/** Adds a number to a list of runs, `[first, last]` each, in which each number is one more than the one before. */
function note(runs, number) {
  const run = runs.at(-1);
  if (run?.[1] + 1 === number) run[1] = number;
  else runs.push([number, number]);
}

function enter(client, name, errors) {
  const report = { joined: false, numbers: [], offsets: [], recovered: [] };
  const room = client.join(name);
  room.on("message", ({ payload, offset }) => {
    note(report.numbers, payload);
    note(report.offsets, offset);
  });
  room.on("recovered", ({ recovered }) => report.recovered.push(recovered));
  room.on("left", ({ code }) => errors.push(code));
  room.joined.then(
    () => (report.joined = true),
    () => {}, // `left` reports the same
  );
  return report;
}

function open(url, { user, rooms }) {
  const report = { user, attempts: 0, connected: [], waits: [], errors: [], rooms: {} };
  const client = new Signalbox({ url, userId: user, WebSocket });
  let last = client.state;
  client.on("state", ({ state, code, retryInMs }) => {
    if (state === "connecting") report.attempts += 1;
    if (state === "disconnected" && last === "connected") report.waits.push(Math.round(retryInMs));
    last = state;
    if (state === "connected") report.connected.push(Date.now());
    if (state === "closed") report.errors.push(`closed with ${code}`);
  });
  client.on("error", ({ code }) => report.errors.push(code));
  for (const name of rooms) report.rooms[name] = enter(client, name, report.errors);
  client.connect();
  clients.push(client);
  reports.push(report);
}

const commands = {
  open: ({ url, clients }) => clients.forEach((client) => open(url, client)),
  report: () => reports,
};

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { n, do: name, ...fields } = JSON.parse(line);
  console.log(JSON.stringify({ n, ok: commands[name](fields) ?? null }));
});
lines.on("close", () => clients.forEach((client) => client.close()));
