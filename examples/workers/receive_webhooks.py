#!/usr/bin/env python3
"""Receives the events of a webhook, and prints each one once.

    SIGNALBOX_WEBHOOK_SECRET=... python3 receive_webhooks.py 127.0.0.1 9000

With a second secret, SIGNALBOX_WEBHOOK_SECRET_PREVIOUS, it accepts requests that either has signed. It needs only Python.
"""

import collections
import hashlib
import hmac
import http.server
import json
import os
import sys
import threading
import time

BODY_BYTES_MAX = 32 << 20
CLOCK_TOLERANCE_S = 300
EVENTS_REMEMBERED = 100_000


def is_signed(secrets, timestamp, signature, body, now):
    """Whether one of the secrets signed the request, at most five minutes from now."""
    if not timestamp.isascii() or not timestamp.isdigit() or abs(now - int(timestamp)) > CLOCK_TOLERANCE_S:
        return False
    signed = timestamp.encode() + b"." + body
    expected = ["v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest() for secret in secrets]
    given = signature.split(",")
    # Every pair is compared, in constant time: how long it takes says nothing about the right signature.
    return any([hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in given])


class EventIds:
    """The IDs of the last events. A real receiver keeps them in its database, with the effect of the event, in one transaction."""

    def __init__(self, most):
        self.most = most
        self.ids = collections.OrderedDict()
        self.lock = threading.Lock()

    def is_new(self, event_id):
        with self.lock:
            if event_id in self.ids:
                return False
            self.ids[event_id] = None
            if len(self.ids) > self.most:
                self.ids.popitem(last=False)
            return True


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    secrets = []
    seen = EventIds(EVENTS_REMEMBERED)

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            # The body is not read, so the connection cannot be used again.
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(int(length))
        timestamp = self.headers.get("Signalbox-Timestamp", "")
        signature = self.headers.get("Signalbox-Signature", "")
        if not is_signed(self.secrets, timestamp, signature, body, time.time()):
            return self.answer(401)
        for event in json.loads(body)["events"]:
            if self.seen.is_new(event["id"]):
                print(json.dumps(event), flush=True)
        # Only now: the server sends again what was not answered.
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    names = ["SIGNALBOX_WEBHOOK_SECRET", "SIGNALBOX_WEBHOOK_SECRET_PREVIOUS"]
    Receiver.secrets = [os.environ[name].encode() for name in names if os.environ.get(name)]
    if not Receiver.secrets:
        sys.exit("set SIGNALBOX_WEBHOOK_SECRET to the secret of the webhook")
    server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Receiver)
    print(f"listening on port {server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
