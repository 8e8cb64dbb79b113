#!/usr/bin/env python3
"""Sends a message through the API of a Signalbox node: POST /api/messages.

    SIGNALBOX_API_KEY=first-key-of-16-or-more python3 send_by_api.py ann order_paid '{"order": 7}'

Prefer this method: the message goes through the plugins, and the answer contains its status.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

URL = os.environ.get("SIGNALBOX_URL", "http://127.0.0.1:8080")
ATTEMPTS = 5


def send(user, event_type, payload):
    """Returns {"messageId", "status"}. The status "offline" means that the user has no connection."""
    body = {"type": event_type, "payload": payload, "receiverId": user, "senderId": ""}
    request = urllib.request.Request(
        URL + "/api/messages",
        data=json.dumps(body, allow_nan=False).encode(),
        headers={"Authorization": "Bearer " + os.environ["SIGNALBOX_API_KEY"]},
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)


def error_in(answer):
    """Returns the server's error. A proxy in between may answer with something other than JSON."""
    try:
        return json.load(answer)["error"]
    except (ValueError, KeyError, TypeError):
        return {"message": str(answer), "retryable": answer.code >= 500}


def main():
    user, event_type, payload = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    for attempt in range(ATTEMPTS):
        try:
            print(send(user, event_type, payload))
            return
        except urllib.error.HTTPError as answer:
            error = error_in(answer)
            if not error.get("retryable"):
                sys.exit(f"refused: {error}")
        except OSError as cause:
            error = cause
        print(f"not sent, trying again: {error}", file=sys.stderr)
        time.sleep(0.1 * 2**attempt)
    sys.exit("given up")


if __name__ == "__main__":
    main()
