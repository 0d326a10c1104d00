"""An S3 endpoint on loopback that can misbehave: moto behind a wrapper, in a process of its own.

`python s3_server.py` prints its port. GET /-/log gives the requests since the last time, as JSON;
GET /-/faults?every=7 makes every 7th request fail, each time in another way (0: none);
GET /-/latency?ms=30 makes every request take that much longer.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from urllib.parse import parse_qs

SLOW_DOWN, INTERNAL = (
    f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    for code, message in (("SlowDown", "Please reduce your request rate."), ("InternalError", "A problem."))
)


class Endpoint:
    """WSGI application."""

    def __init__(self, moto):
        self._moto, self._log, self._every, self._latency_s = moto, [], 0, 0.0
        self._lock, self._n_requests, self._kinds = threading.Lock(), 0, itertools.cycle(range(4))

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/-/"):
            return self._control(path, environ["QUERY_STRING"], start_response)
        with self._lock:
            what = "LIST" if "list-type=2" in environ["QUERY_STRING"] else environ["REQUEST_METHOD"]
            self._log.append([what, path])
            self._n_requests += 1
            fault = next(self._kinds) if self._every and self._n_requests % self._every == 0 else None
        time.sleep(self._latency_s)
        if fault in (0, 1):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, body = [("503 Slow Down", SLOW_DOWN), ("500 Internal Server Error", INTERNAL)][fault]
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if fault == 2:
            self._drop(environ)
        body = self._moto(environ, start_response)
        return body if fault is None else self._half(environ, b"".join(body))

    def _half(self, environ, body):
        """The first half of a body, then nothing; of an empty one nothing at all."""
        yield body[: len(body) // 2]
        self._drop(environ)

    def _drop(self, environ):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError

    def _control(self, path, query, start_response):
        with self._lock:
            answer, self._log = self._log, [] if path == "/-/log" else self._log
            if path == "/-/faults":
                self._every = int(parse_qs(query)["every"][0])
            elif path == "/-/latency":
                self._latency_s = float(parse_qs(query)["ms"][0]) / 1000
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


def main():
    """Serve until stdin closes."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        """HTTP/1.1 as stores speak it, without a line a request."""

        protocol_version = "HTTP/1.1"

        def log(self, *args):
            """Say nothing."""

        def handle_error(self, *args):
            """Connections are dropped on purpose."""

    app = Endpoint(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    server.handle_error = lambda *args: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # connections that are kept alive have threads that wait


if __name__ == "__main__":
    main()
