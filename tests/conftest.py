"""Fixtures that more than one test module uses."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from types import SimpleNamespace

import corpora
import fsspec
import pytest


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Children must be stoppable by SIGINT also where the tests run in the background, with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """Folder of a whole sample corpus, made once (about 10 s); read only."""
    folder = tmp_path_factory.mktemp("sample")
    # In a process of its own: importing Ray puts packages on the path, whose texts the sample would have.
    script = Path(__file__).parents[1] / "scripts" / "make_sample.py"
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def s3_endpoint():
    """An S3 endpoint (moto) on loopback and an environment that leads there; see s3_server."""
    for package, extra in (("s3fs", "dataselect[s3]"), ("moto", "moto[server]"), ("boto3", "moto[server]")):
        pytest.importorskip(package, reason=f"needs an S3 endpoint: pip install '{extra}'")
    script = Path(__file__).with_name("s3_server.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        base = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        env = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": base,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            yield base
        process.stdin.close()


@pytest.fixture
def s3(s3_endpoint):
    """An empty bucket: its `url`, `log()` of requests, `faults(every)`; see s3_server."""
    import boto3

    def ask(path):
        with urllib.request.urlopen(f"{s3_endpoint}/-/{path}") as answer:
            return json.load(answer)

    bucket = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    ask("log")
    yield SimpleNamespace(
        url=f"s3://{bucket}", log=lambda: ask("log"), faults=lambda every: ask(f"faults?every={every}")
    )
    ask("faults?every=0")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def gs_endpoint():
    """An emulator of Google Cloud Storage in this process, and an environment that leads there."""
    pytest.importorskip("gcsfs", reason="needs the extra: pip install 'dataselect[gs]'")
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="needs an endpoint: pip install gcp-storage-emulator"
    )
    port = _free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # gRPC, which the emulator has not
        yield
    server.stop()


@pytest.fixture(scope="session")
def abfs_endpoint():
    """Azurite, which emulates Azure Blob Storage, and an environment that leads there."""
    pytest.importorskip("adlfs", reason="needs the extra: pip install 'dataselect[abfs]'")
    if shutil.which("azurite-blob") is None:
        pytest.skip("needs Azurite on the PATH: npm install -g azurite")
    port, key = _free_port(), base64.b64encode(bytes(64)).decode()
    serve = f"azurite-blob --inMemoryPersistence --disableTelemetry --skipApiVersionCheck --blobPort {port}"
    # It ends with this process, however that ends: then the pipe closes.
    with (
        subprocess.Popen(
            ["sh", "-c", f"{serve} >/dev/null & read end; kill $!"],
            stdin=subprocess.PIPE,
            env={**os.environ, "AZURITE_ACCOUNTS": f"tests:{key}"},
        ) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"DefaultEndpointsProtocol=http;AccountName=tests;AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/tests;",
        )
        corpora.wait_until(lambda: _listens(port))
        yield
        process.stdin.close()


@pytest.fixture
def new_bucket(request):
    """Makes an empty bucket on "s3", "gs" or "abfs"; its URL."""

    def make(protocol):
        if protocol == "s3":
            return request.getfixturevalue("s3").url
        request.getfixturevalue(f"{protocol}_endpoint")
        name = f"bucket-{uuid.uuid4().hex}"
        fsspec.filesystem(protocol).mkdir(name)
        return f"{protocol}://{name}"

    return make


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of processes: a head without cores for tasks, and two nodes with one each."""
    pytest.importorskip("ray", reason="the Ray engine needs the extra: pip install 'dataselect[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        yield made
        made.shutdown()


@pytest.fixture
def serial(monkeypatch):
    """Runs without worker processes: tests of what a run decides, not of how tasks are run."""
    monkeypatch.setattr("dataselect.runner.LocalEngine", corpora.SerialEngine)


@pytest.fixture
def cli(capsys, monkeypatch):
    """Calls the command line in this process; gives code, out and err. A traceback fails the test."""
    from dataselect.cli import main

    def call(*args):
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        monkeypatch.setattr(sys, "argv", ["dataselect", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as done:
            code = done.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return SimpleNamespace(code=code, out=shown.out, err=shown.err)

    return call
