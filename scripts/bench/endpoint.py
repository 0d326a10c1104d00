"""An S3 endpoint on loopback for cases that keep everything on an object store: moto, in its own process.

`python -m bench.endpoint put URL FILE ...` uploads files, `... drop URL` deletes all that is below.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.texts import SIZES, Text
from dataselect.io.store import store_at

SERVER = Path(__file__).resolve().parents[2] / "tests" / "s3_server.py"
BUCKET = "s3://bench"


@dataclass(frozen=True)
class Endpoint:
    """One that runs; `env` leads any S3 client there."""

    env: dict[str, str]

    def upload(self, text: Text) -> None:
        """The shards of both sizes of a text."""
        for size in SIZES:
            self._do("put", _folder(text, size), *text.shards(size))

    def shards(self, text: Text, size: str) -> list[str]:
        """A pattern: one listing, as recipes have it."""
        return [f"{_folder(text, size)}/*"]

    def drop(self, url: str) -> None:
        """Delete what is below `url`."""
        self._do("drop", url)

    def _do(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "bench.endpoint", *arguments], check=True, env=self.env)


def _folder(text: Text, size: str) -> str:
    return f"{BUCKET}/texts/{text.folder.name}/{size}"


@contextlib.contextmanager
def endpoint(env: dict[str, str]) -> Iterator[Endpoint]:
    """Start one, and stop it at the end, however that comes: it serves until its stdin closes.

    The shell leaves it to init, so that it is no child of who measures, and its CPU time counts for nobody.
    """
    detached = ["sh", "-c", 'exec 3<&0; "$@" <&3 & exec 3<&-', "sh", sys.executable, str(SERVER)]
    shell = subprocess.Popen(detached, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert shell.stdin is not None
    assert shell.stdout is not None
    with shell.stdin, shell.stdout:
        port = shell.stdout.readline().strip()
        shell.wait()
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "bench")
        where = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        yield Endpoint({**env, **keys, **where})


def main(what: str, url: str, *paths: str) -> None:
    """In a process of its own: who measures stays small."""
    import s3fs  # noqa: PLC0415 - an extra

    s3fs.S3FileSystem().mkdirs(BUCKET, exist_ok=True)
    store = store_at(url)
    if what == "drop":
        for entry in store.list():
            store.delete(entry.name)
    for path in map(Path, paths):
        with store.commit(path.name) as file:
            file.write(path.read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
