"""Fixtures that more than one test module uses."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import corpora
import make_sample
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
    make_sample.write_sample(folder)
    return folder


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
