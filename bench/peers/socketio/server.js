// A message server on Socket.IO, for `cargo xtask bench --peers`.
//
// A client is the user whom the query names as `userId`; nothing checks that. Each user has a room `user:ID`. `message`
// goes to one user, `room_message` to the members of a room, which a client enters with `join`. The last argument may be
// a callback, which confirms the event. Nothing is kept, and there is one process with one thread: no cluster adapter.
//
// Settings follow https://socket.io/docs/v4/performance-tuning: the native add-ons of `ws`, and no reference to the
// request that opened a connection. There is no other transport than WebSocket, and no compression.

import { createServer } from "node:http";
import { Server } from "socket.io";

const port = Number(process.argv[2] ?? 0);
const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
});

io.engine.on("connection", (connection) => {
  connection.userId = connection.request._query.userId;
  // Frees the request's memory.
  connection.request = null;
});

io.on("connection", (socket) => {
  const user = socket.conn.userId;
  if (!user) {
    socket.disconnect(true);
    return;
  }
  socket.join(`user:${user}`);
  socket.on("message", (receiver, payload, done) => {
    io.to(`user:${receiver}`).emit("message", user, payload);
    done?.();
  });
  socket.on("room_message", (room, payload, done) => {
    io.to(`room:${room}`).emit("message", user, payload);
    done?.();
  });
  socket.on("join", (room, done) => {
    socket.join(`room:${room}`);
    done?.();
  });
});

http.on("error", (error) => {
  console.error(`cannot listen on port ${port}; name a free one, or none: ${error.message}`);
  process.exit(1);
});
http.listen(port, "127.0.0.1", () => {
  const { address, port } = http.address();
  console.log(`listening on ${address}:${port}`);
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => process.exit(0));
}
