"""A small Hugging Face Hub and web server on loopback, in threads of the test's process.

/datasets/ORG/NAME   one repository of the files in `Hub.files`, whose revisions are "main" and `Hub.tag`
/files/...           the same files as a web server has them: ranges, ETags, folders as pages of links

Downloads of the repository go through a redirect, as those of the real one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

REPOSITORY = "org/name"


class Hub(ThreadingHTTPServer):
    """Its files, what was asked of it, and how it misbehaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.tag = "v1.0"
        self.token: str | None = None
        """Without it the repository is not there."""
        self.every = 0
        """Every so-manyth request fails, with a 503 or no answer in turn."""
        self.knows_ranges = True
        self.tells_versions = True
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._lock = threading.Lock()

    def fault(self, method: str, path: str) -> str | None:
        """Note a request; how it fails, if it does."""
        with self._lock:
            self.log.append((method, path))
            n = len(self.log)
            return None if not self.every or n % self.every else ("503", "drop")[n // self.every % 2]

    def requests(self) -> list[tuple[str, str]]:
        """Those since the last time."""
        with self._lock:
            log, self.log = self.log, []
        return log


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A server until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        address = urlsplit(self.path)
        path, query = unquote(address.path), parse_qs(address.query)
        fault = self.server.fault(self.command, path)
        if fault == "drop":
            self.close_connection = True
        elif fault is not None:
            self._send(503, b"busy")
        elif path.startswith("/files/"):
            self._file(path.removeprefix("/files/"))
        elif path.startswith("/cdn/"):
            self._bytes(self.server.files[path.removeprefix("/cdn/")])
        else:
            self._hub(path, address.path, query, parse_qs(body))

    def _hub(self, path, raw, query, form) -> None:
        rest = re.fullmatch(rf"/(?:api/)?datasets/{REPOSITORY}(?:/(.*))?", path)
        token = self.server.token
        if rest is None or (token and self.headers.get("Authorization") != f"Bearer {token}"):
            return self._send(401, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        what, _, rest = (rest[1] or "").partition("/")
        revision, _, name = rest.partition("/")
        if what and revision not in ("main", self.server.tag):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if what in ("", "revision"):
            return self._json({"id": REPOSITORY, "sha": "0" * 40})
        if what == "tree":
            found = list(self._tree(name, recursive=query["recursive"][0].lower() == "true"))
            if not found:
                return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return self._json(found)
        if what == "paths-info":
            return self._json([self._entry(name) for name in form["paths"] if name in self.server.files])
        if name not in self.server.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        return self._send(302, b"", {"Location": f"/cdn/{quote(name)}"})

    def _tree(self, folder, *, recursive):
        folders = set()
        start = f"{folder}/" if folder else ""
        for name in sorted(self.server.files):
            if not name.startswith(start):
                continue
            parts = name.removeprefix(start).split("/")
            parents = {start + "/".join(parts[:i]) for i in range(1, len(parts))}
            for parent in sorted(parents - folders):
                if recursive or "/" not in parent.removeprefix(start):
                    yield {"type": "directory", "path": parent, "oid": "0" * 40, "size": 0}
            folders |= parents
            if recursive or len(parts) == 1:
                yield self._entry(name)

    def _entry(self, name):
        data = self.server.files[name]
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _file(self, name) -> None:
        if name in self.server.files:
            return self._bytes(self.server.files[name])
        start = f"{name.rstrip('/')}/"
        below = {file.removeprefix(start) for file in self.server.files if file.startswith(start)}
        if not below:
            return self._send(404, b"none here")
        names = {first + slash for first, slash, _ in (rest.partition("/") for rest in below)}
        links = "".join(f'<a href="{quote(name)}">{name}</a>\n' for name in sorted(names))
        return self._send(200, links.encode(), {"Content-Type": "text/html"})

    def _bytes(self, data) -> None:
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'} if self.server.tells_versions else {}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None or not self.server.knows_ranges:
            return self._send(200, data, headers)
        start, stop = int(span[1]), min(int(span[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return self._send(416, b"", headers)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return self._send(206, data[start:stop], headers)

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, body, headers=()) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **dict(headers)}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
