// The memory of 1,000 connected clients: node --expose-gc bench/memory.mjs ws://127.0.0.1:8080/ws [COUNT]. The server needs
// auth.mode = "none". Each client joins one room, which needs no rule.
import WebSocket from "ws";
import { Signalbox } from "../dist/index.js";

const [url, count = 1000] = process.argv.slice(2);

function resident() {
  globalThis.gc();
  return process.memoryUsage.rss();
}

function open(number) {
  const client = new Signalbox({ url, userId: `user-${number}`, WebSocket });
  client.connect();
  return client;
}

const before = resident();
const clients = [];
while (clients.length < count) {
  const batch = Array.from({ length: Math.min(100, count - clients.length) }, (_, index) => open(clients.length + index));
  await Promise.all(batch.map((client, index) => client.join(`room-${clients.length + index}`).joined));
  clients.push(...batch);
}
const after = resident();
const mebibytes = (bytes) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
const each = ((after - before) / count / 1024).toFixed(1);
console.log(`${count} clients, ${mebibytes(after - before)}, ${each} KiB each, whole process ${mebibytes(after)}`);
for (const client of clients) client.close();
