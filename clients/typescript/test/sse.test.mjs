// The fallback to server-sent events, with a scripted server of HTTP.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, test } from "node:test";
import WebSocket from "ws";
import { EventStream } from "../dist/eventStream.js";
import { Signalbox } from "../dist/index.js";
import { sse } from "../dist/sse.js";

const WELCOME = { type: "welcome", payload: { connectionId: "c 1", sendKey: "key", heartbeatIntervalMs: 25_000 } };

test("events are the same however their bytes arrive", () => {
  const bytes = new TextEncoder().encode('id: e:1\ndata: {"a":"é"}\n\n: \n\nevent: close\r\ndata:1\r\ndata: 2\r\n\r\ndata\r\rdata: cut');
  for (let size = 1; size <= bytes.length; size++) {
    const events = [];
    const stream = new EventStream((...event) => events.push(event));
    for (let at = 0; at < bytes.length; at += size) stream.feed(bytes.subarray(at, at + size));
    assert.deepEqual(events, [["", '{"a":"é"}'], ["close", "1\n2"], ["", ""]], String(size));
  }
});

/** The transports of attempts that end as `ends` says; `welcome` and `lost` are connections. */
function transports(ends, options = {}) {
  const route = sse(options, { connectTimeoutMs: 10_000 });
  const found = [];
  let wasConnected = false;
  const attempt = () => {
    const link = route.open(new URL("ws://localhost:1/ws"), undefined, { heard() {}, frame() {}, refused() {}, ended() {} });
    link?.drop();
    found.push(link ? "sse" : "ws");
  };
  attempt();
  for (const end of ends) {
    if (end === "welcome") {
      route.answered();
      route.welcomed();
      wasConnected = true;
      continue;
    }
    found.push(route.ended(end, wasConnected));
    wasConnected = false;
    attempt();
  }
  return found.filter((word) => word !== "reconnect");
}

test("the transport of the next attempt depends on the end of the last one", () => {
  const [lost, blocked] = [{}, { status: 502 }];
  assert.deepEqual(transports([blocked, lost, lost]), ["ws", "sse", "ws", "sse"]);
  assert.deepEqual(transports([{ status: 503, errorCode: "draining" }, { status: 503 }]), ["ws", "ws", "sse"]);
  assert.deepEqual(transports([{ code: 4008 }, { status: 400, errorCode: "not_an_upgrade" }]), ["ws", "ws", "sse"]);
  assert.deepEqual(transports([{ status: 401 }]), ["ws", "renew", "ws"]);
  assert.deepEqual(transports([{ unsupported: true }]), ["ws", "close", "ws"]);
  assert.deepEqual(transports(["welcome", lost, lost, lost, lost, lost]), ["ws", "ws", "ws", "ws", "sse", "ws"]);
  assert.deepEqual(transports([lost, "welcome", lost, lost, lost]), ["ws", "sse", "sse", "ws", "sse"]);
  assert.deepEqual(transports([lost, "welcome", lost], { webSocketAgainMs: 0 }), ["ws", "sse", "ws"]);
});

test("a final status closes the client if both transports end with one or the server has sent it", () => {
  const [forbidden, absent] = [{ status: 403 }, { status: 404, errorCode: "sse_disabled" }];
  assert.deepEqual(transports([forbidden, absent]), ["ws", "sse", "close", "ws"]);
  assert.deepEqual(transports([{ status: 502 }, absent, { status: 502 }, {}, forbidden, absent]), ["ws", "sse", "ws", "sse", "ws", "sse", "close", "ws"]);
  assert.deepEqual(transports([{}, { status: 403, errorCode: "blocked" }]), ["ws", "sse", "close", "sse"]);
});

const ended = [];
after(() => ended.forEach((end) => end()));

/** A server that refuses upgrades. `posts` has its requests with frames, and `status` answers them. */
async function scripted(options = {}) {
  const served = { streams: [], posts: [], status: () => 202 };
  const server = createServer(async (request, response) => {
    if (request.method === "GET") {
      served.streams.push({ request, response });
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.flushHeaders();
      if (served.welcome !== false) response.write(`data: ${JSON.stringify(WELCOME)}\n\n`);
      return;
    }
    let body = "";
    for await (const chunk of request) body += chunk;
    served.posts.push({ url: request.url, headers: request.headers, frame: JSON.parse(body), response });
    const status = served.status(served.posts.length);
    if (status) response.writeHead(status).end();
  });
  server.on("upgrade", (_, socket) => socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `ws://127.0.0.1:${server.address().port}/app/ws?trace=plugins`;
  const client = new Signalbox({ url, userId: "ann", WebSocket, fallback: sse, backoffMinMs: 1, backoffMaxMs: 2, ...options });
  const states = [];
  const errors = [];
  client.on("state", (change) => states.push(change));
  client.on("error", (error) => errors.push(error));
  ended.push(() => {
    client.close();
    server.closeAllConnections();
    server.close();
  });
  return { client, served, states, errors };
}

const until = async (isSo) => {
  while (!isSo()) await new Promise((next) => setTimeout(next, 5));
};
const connected = ({ client, states }) => {
  client.connect();
  return until(() => states.at(-1).state === "connected");
};

test("the stream is next to the WebSocket, and frames go to the connection one at a time", async () => {
  const scene = await scripted({ userId: undefined, token: "t" });
  const { client, served, states } = scene;
  served.status = () => undefined;
  await connected(scene);
  assert.equal(states.at(-1).transport, "sse");
  assert.equal(states.find(({ state }) => state === "disconnected").status, 502);
  const [{ request }] = served.streams;
  assert.equal(request.url, "/app/sse?trace=plugins");
  assert.equal(request.headers.authorization, "Bearer t");
  for (const payload of [1, 2]) client.send("t", payload).catch(() => {});
  await until(() => served.posts.length === 1);
  const { url, headers, response } = served.posts[0];
  assert.equal(url, "/app/sse/c%201");
  assert.equal(headers.authorization, "Bearer key");
  response.writeHead(202).end();
  await until(() => served.posts.length === 2);
  assert.deepEqual(served.posts.map(({ frame }) => frame.payload), [1, 2]);
});

test("the frame over a thousand that wait fails", async () => {
  const scene = await scripted();
  const { client, served } = scene;
  served.status = () => undefined;
  await connected(scene);
  for (let n = 0; n < 1000; n++) client.send("t", n).catch(() => {});
  await assert.rejects(client.send("t", 1000), { code: "queue_full", retryable: true });
});

test("close aborts the stream and the frame that is under way", async () => {
  const scene = await scripted();
  const { client, served } = scene;
  served.status = () => undefined;
  await connected(scene);
  const sent = assert.rejects(client.send("t", 1), { code: "closed" });
  await until(() => served.posts.length === 1);
  const gone = [served.streams[0].response, served.posts[0].response].map((response) => once(response, "close"));
  client.close();
  await Promise.all([sent, ...gone]);
});

test("a stream whose events do not arrive is an error that names a proxy", async () => {
  const scene = await scripted({ connectTimeoutMs: 500 });
  const { client, served, errors } = scene;
  served.welcome = false;
  client.connect();
  await until(() => errors.length > 0);
  assert.equal(errors[0].code, "buffered");
  assert.equal(errors[0].retryable, true);
  assert.match(errors[0].message, /proxy/);
});
