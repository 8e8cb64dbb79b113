#!/usr/bin/env python3
"""Sends a message with a client that was generated from the description of the API.

    SIGNALBOX_API_KEY=first-key-of-16-or-more python3 send_by_generated_client.py ann order_paid '{"order": 7}'

The package `signalbox_api` comes from openapi-python-client; README.md has the command. It knows every call, parameter and
answer of the API, so type checkers and editors do too.
"""

import json
import os
import sys

import httpx
from signalbox_api import AuthenticatedClient
from signalbox_api.api.default import find_online_users, send_message
from signalbox_api.models import Failed, FindOnlineUsersBody, Message

URL = os.environ.get("SIGNALBOX_URL", "http://127.0.0.1:8080")


def checked(answer):
    """The answer, unless it is an error or, from a proxy in between, something unknown."""
    if isinstance(answer, Failed):
        sys.exit(f"refused: {answer.error.code}: {answer.error.message}")
    if answer is None:
        sys.exit("the answer is none of the API")
    return answer


def main():
    user, event_type, payload = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    key = os.environ["SIGNALBOX_API_KEY"]
    with AuthenticatedClient(base_url=URL, token=key, timeout=httpx.Timeout(5)) as client:
        users = FindOnlineUsersBody(users=[user])
        found = checked(find_online_users.sync(client=client, body=users))
        message = Message(type_=event_type, payload=payload, receiver_id=user)
        sent = checked(send_message.sync(client=client, body=message))
    print("online" if user in found.online else "away")
    print(f"{sent.message_id} {sent.status}")


if __name__ == "__main__":
    main()
