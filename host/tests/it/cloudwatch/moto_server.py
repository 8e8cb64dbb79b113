"""CloudWatch by moto, behind the protocol that the AWS SDK for Rust speaks.

moto knows CloudWatch's JSON protocol, the SDK speaks Smithy RPC v2 with CBOR. Requests and answers are translated here;
what they say is moto's. `GET /recorded` shows the single values that moto keeps, which percentiles are made of.

Prints the port that it listens on, and serves until its standard input ends.
"""

import gzip
import io
import json
import sys
import threading
from datetime import datetime, timezone

import cbor2
from moto.cloudwatch.models import cloudwatch_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

MOTO = DomainDispatcherApplication(create_backend_app)


def serve(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/recorded":
        return answer(start_response, "200 OK", "application/json", json.dumps(recorded()).encode())
    if not path.startswith("/service/"):
        return MOTO(environ, start_response)
    # /service/<service>/operation/<operation>
    _, _, service, _, operation = path.split("/")
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
        body = gzip.decompress(body)
    translated = json.dumps(cbor2.loads(body), default=lambda time: time.timestamp()).encode()
    environ = environ | {
        "PATH_INFO": "/",
        "RAW_URI": "/",
        "REQUEST_URI": "/",
        "CONTENT_TYPE": "application/x-amz-json-1.0",
        "CONTENT_LENGTH": str(len(translated)),
        "HTTP_X_AMZ_TARGET": f"{service}.{operation}",
        "wsgi.input": io.BytesIO(translated),
    }
    environ.pop("HTTP_CONTENT_ENCODING", None)
    answered = {}
    chunks = MOTO(environ, lambda status, headers, *_: answered.update(status=status))
    text = b"".join(chunks)
    return answer(
        start_response,
        answered["status"],
        "application/cbor",
        cbor2.dumps(timed(json.loads(text or b"{}")), datetime_as_timestamp=True),
    )


def timed(value):
    """JSON has no times: those of CloudWatch are called `Timestamp`."""
    if isinstance(value, list):
        return [timed(element) for element in value]
    if not isinstance(value, dict):
        return value
    return {
        name: datetime.fromtimestamp(inner, timezone.utc) if name == "Timestamp" else timed(inner)
        for name, inner in value.items()
    }


def recorded():
    return [
        {
            "region": region,
            "namespace": datum.namespace,
            "metric": datum.name,
            "unit": datum.unit,
            "dimensions": {dimension.name: dimension.value for dimension in datum.dimensions},
            "timestamp": datum.timestamp.timestamp(),
            "value": datum.value,
        }
        for account in cloudwatch_backends.values()
        for region, backend in account.items()
        for datum in backend.metric_data
        if hasattr(datum, "value")
    ]


def answer(start_response, status, content_type, body):
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    start_response(status, headers + [("smithy-protocol", "rpc-v2-cbor")])
    return [body]


class Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, serve, threaded=True, request_handler=Silent)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
