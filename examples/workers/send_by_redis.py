#!/usr/bin/env python3
"""Sends a message through Redis, as workers of websocket-app do: looks up the user's servers and publishes to them.

    python3 send_by_redis.py ann order_paid '{"order": 7}'

The message bypasses the plugins, and there is no confirmation of delivery. This program implements RESP itself, so it needs
only Python. A Redis cluster needs a client that follows redirections.
"""

import datetime
import json
import os
import socket
import sys

HOST = os.environ.get("REDIS_HOST", "127.0.0.1")
PORT = int(os.environ.get("REDIS_PORT", "6379"))
PREFIX = os.environ.get("REDIS_KEY_PREFIX", "")  # redis.key_prefix of the nodes


class Redis:
    """A minimal Redis client."""

    def __init__(self, host, port):
        self.stream = socket.create_connection((host, port), timeout=5).makefile("rwb")

    def command(self, *words):
        words = [str(word).encode() for word in words]
        self.stream.write(b"*%d\r\n" % len(words))
        for word in words:
            self.stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
        self.stream.flush()
        return self.answer()

    def answer(self):
        line = self.stream.readline()
        if not line:
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.stream.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return rest.decode()


def send(redis, user, event_type, payload):
    """Publishes to every server with a connection of the user, and returns how many servers listened."""
    message = json.dumps(
        {
            "type": event_type,
            "payload": payload,
            "receiverID": user,
            "senderId": "",
            "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        },
        # Values that receivers cannot read, such as NaN or half of a surrogate pair, raise an error here.
        allow_nan=False,
        ensure_ascii=False,
    )
    servers = redis.command("SMEMBERS", f"{PREFIX}user_servers:{user}")
    # A crashed server may still be listed, but it does not listen and its lease has expired.
    return sum(redis.command("PUBLISH", f"{PREFIX}server:{server}", message) for server in servers)


def main():
    user, event_type, payload = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    reached = send(Redis(HOST, PORT), user, event_type, payload)
    print(f"published to {reached} servers" if reached else "the user is connected nowhere")


if __name__ == "__main__":
    main()
