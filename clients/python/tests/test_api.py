"""The client of backends."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from signalbox_client import Api, AsyncApi, Outgoing, Sent, SignalboxError


class Backend:
    """An HTTP server that gives the next of `answers`, and remembers requests."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, Any, str | None]] = []
        self.connections = 0
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                backend.connections += 1
                super().setup()

            def answer(self) -> None:
                assert self.headers["Authorization"] == "Bearer key"
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                backend.requests.append((self.command, self.path, body, self.headers.get("Idempotency-Key")))
                status, value = backend.answers.pop(0)
                if status == 0:
                    self.close_connection = True
                    return
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_messages_are_sent_to_one_and_to_many() -> None:
    one = {"messageId": "m", "status": "delivered", "data": 1, "duplicate": True}
    refused = {"error": {"code": "blank", "message": "no text", "plugin": "chat", "retryable": False}}
    many = {"results": [{"receiverId": "ann", "messageId": "n", "status": "offline"}, {"receiverId": "bob"} | refused]}
    with Backend((200, one), (200, many), (200, {"results": [one, many, refused]})) as backend:
        api = Api(backend.url, "key")
        assert api.send(Outgoing("t", {"a": 1}, to="ann"), idempotency_key="k") == [Sent("delivered", "m", 1, True)]
        sent = api.send(Outgoing("t", users=["ann", "bob"], sender="kitchen", raw=True))
        assert [(each.user, each.status) for each in sent] == [("ann", "offline"), ("bob", "")]
        assert sent[1].error is not None and sent[1].error.plugin == "chat"
        assert [len(each) for each in api.batch([Outgoing("t", everyone=True)])] == [1, 2, 1]
        api.close()
        assert backend.requests == [
            ("POST", "/api/messages", {"type": "t", "payload": {"a": 1}, "receiverId": "ann"}, "k"),
            (
                "POST",
                "/api/messages",
                {"type": "t", "payload": None, "receiverIds": ["ann", "bob"], "senderId": "kitchen", "raw": True},
                None,
            ),
            ("POST", "/api/batch", {"messages": [{"type": "t", "payload": None, "everyone": True}]}, None),
        ]
        assert backend.connections == 1


def test_names_are_encoded_and_answers_are_read() -> None:
    history = {"epoch": "e", "offset": 9}
    member = {"userId": "ann", "connections": 2, "since": "2026-01-01T00:00:00.000Z", "info": {"a": 1}}
    message = {"type": "t", "payload": 1, "room": "a/b", "offset": 8}
    answers = [
        {"online": True, "nodes": ["n"], "connections": 2},
        {"online": ["ann"]},
        {"connections": 1, "blockedUntil": 99},
        {"connections": 2, "failed": 1},
        {"connections": 2},
        {"connections": 3, "nodes": [], "history": history, "unanswered": ["x"]},
        {"total": 5, "members": [member]},
        history | {"hasOlder": True, "messages": [message]},
        {"until": 77},
    ]

    async def calls(api: AsyncApi) -> None:
        assert (await api.user("a n")).connections == 2
        assert await api.online(["ann", "bob"]) == ["ann"]
        assert (await api.disconnect("ann", code=4501, block="10m")).blocked_until == 99
        assert (await api.add_to_room("a/b", "ü")).failed == 1
        assert (await api.remove_from_room("a/b", "ü")).connections == 2
        room = await api.room("a/b")
        assert (room.connections, room.history and room.history.offset, room.unanswered) == (3, 9, ["x"])
        members = await api.members("a/b")
        assert (members.total, members.members[0].info) == (5, {"a": 1})
        page = await api.history("a/b", before=9, limit=1)
        assert (page.messages[0].offset, page.has_older) == (8, True)
        assert await api.revoke(user="ann", until=77) == 77

    with Backend(*((200, answer) for answer in answers)) as backend:
        asyncio.run(calls(AsyncApi(backend.url, "key")))
        assert [(method, path, body) for method, path, body, _ in backend.requests] == [
            ("GET", "/api/users/a%20n", None),
            ("POST", "/api/users/online", {"users": ["ann", "bob"]}),
            ("POST", "/api/users/ann/disconnect", {"code": 4501, "block": "10m"}),
            ("PUT", "/api/rooms/a%2Fb/members/%C3%BC", None),
            ("DELETE", "/api/rooms/a%2Fb/members/%C3%BC", None),
            ("GET", "/api/rooms/a%2Fb", None),
            ("GET", "/api/rooms/a%2Fb/members", None),
            ("GET", "/api/rooms/a%2Fb/history?before=9&limit=1", None),
            ("POST", "/api/tokens/revoke", {"user": "ann", "until": 77}),
        ]


def test_a_refusal_is_an_error_with_its_status() -> None:
    refused = {"error": {"code": "unavailable", "message": "later", "retryable": True}}
    with Backend((503, refused), (404, "?")) as backend:
        api = Api(backend.url, "key")
        for expected in [("unavailable", True, 503), ("refused", False, 404)]:
            with pytest.raises(SignalboxError) as failed:
                api.user("ann")
            assert (failed.value.code, failed.value.retryable, failed.value.status) == expected


def test_only_a_call_that_does_no_harm_is_repeated_on_a_new_connection() -> None:
    ok = {"messageId": "m", "status": "handled"}
    with Backend((200, ok), (0, None), (200, ok), (0, None)) as backend:
        api = Api(backend.url, "key")
        api.send(Outgoing("t"))
        api.send(Outgoing("t"), idempotency_key="k")
        with pytest.raises(SignalboxError, match="connection_lost"):
            api.send(Outgoing("t"))
        assert [key for _, _, _, key in backend.requests] == [None, "k", "k", None]
