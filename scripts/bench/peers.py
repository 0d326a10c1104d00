"""Other tools that do the same jobs: how to install each, and how to run it.

Versions are pinned; the settings of each are in the first lines of its script in scripts/peers/. Every peer
has a virtual environment of its own. One that can't be installed or run is reported and hides no other.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cases import FILTERS, Case, of_script, one_cpu
from bench.measure import ONE_THREAD
from bench.texts import Text, TextSpec, peer_spec

SCRIPTS = Path(__file__).resolve().parents[1] / "peers"
_JSONL_ZST = ("orjson==3.13.0", "zstandard==0.25.0")
_QUIET = {
    **ONE_THREAD,
    "PYTHONNOUSERSITE": "1",
    "DO_NOT_TRACK": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Peer:
    """A tool and the job it is measured at."""

    name: str
    script: str
    venv: str
    requirements: tuple[str, ...]
    kind: str
    """The text it reads."""
    mb: float
    """1x, so that 2x minus 1x is some ten seconds of CPU."""
    against: tuple[str, ...]
    """Our cases that do the same job."""
    extra: str | None = None
    """A file that its script needs: `model` or `target`."""
    pythons: tuple[str, ...] = ("3.11", "3.12", "3.10")

    def spec(self, scale: float) -> TextSpec:
        """The text; scale: of all peers' texts."""
        return peer_spec(self.kind, self.mb * scale)


_DATATROVE = ("datatrove[io,processing]==0.10.1", "spacy==3.8.18", "nltk==3.10.4", "numpy==2.4.6")
_DEDUP = ("minhash_dedup",)
PEERS = (
    Peer("daft minhash", "daft_minhash", "daft", ("daft==0.7.26",), "suffixed", 100, _DEDUP),
    Peer("rensa", "rensa_dedup", "rensa", ("rensa==0.5.0", *_JSONL_ZST), "suffixed", 60, _DEDUP),
    Peer(
        "datasketch",
        "datasketch_lsh",
        "datasketch",
        ("datasketch==2.0.0", "numpy==2.4.6", *_JSONL_ZST),
        "suffixed",
        24,
        _DEDUP,
    ),
    Peer(
        "text-dedup",
        "text_dedup_minhash",
        "text-dedup",
        ("text-dedup==0.4.1", "datasets==5.2.0"),
        "suffixed",
        24,
        _DEDUP,
        pythons=("3.12", "3.13"),
    ),
    Peer("datatrove minhash", "datatrove_minhash", "datatrove", _DATATROVE, "suffixed", 6, _DEDUP),
    Peer("datatrove filters", "datatrove_filters", "datatrove", _DATATROVE, "bare", 4, (FILTERS,)),
    Peer(
        "fastText package",
        "fasttext_predict",
        "fasttext",
        ("fasttext-numpy2-wheel==0.9.2", "numpy==2.4.6", *_JSONL_ZST),
        "bare",
        60,
        ("fasttext_quality",),
        extra="model",
    ),
    Peer(
        "DSIR package",
        "dsir_resample",
        "data-selection",
        ("data-selection==1.0.3", "nltk==3.10.4", "numpy==2.4.6"),
        "bare",
        8,
        ("ngram_importance+select",),
        extra="target",
    ),
)


class NotInstalled(Exception):
    """A peer's environment can't be made; the message says why."""


def find_python(minors: Sequence[str]) -> str:
    """An interpreter of one of these versions, the first that there is."""
    for minor in minors:
        pyenv = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{minor}.*/bin/python")))
        for python in filter(None, [sys.executable, *pyenv, shutil.which(f"python{minor}")]):
            shown = subprocess.run([python, "-V"], capture_output=True, text=True, check=False).stdout
            if shown.startswith(f"Python {minor}."):
                return os.path.realpath(python)
    raise NotInstalled(f"needs Python {' or '.join(minors)}, and none is here")


def install(peer: Peer, cache: Path) -> dict[str, object]:
    """Make the peer's environment if it is not there; its `python`, `requirements` and `packages`."""
    folder = cache / "venvs" / peer.venv
    stamp = folder / "installed.json"
    if stamp.exists():
        record: dict[str, object] = json.loads(stamp.read_text())
        if record["requirements"] == list(peer.requirements):
            return record
    shutil.rmtree(folder, ignore_errors=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
    print(f"installing {', '.join(peer.requirements)} ...", file=sys.stderr, flush=True)
    try:
        _run([find_python(peer.pythons), "-m", "venv", str(folder)], 300)
        _run([*pip, "install", *peer.requirements], 1200)
        packages = _run([*pip, "freeze"], 60).split()
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or [repr(error)]
        raise NotInstalled(said[-1]) from error
    version = _run([python, "-c", "import platform; print(platform.python_version())"], 60).strip()
    record = {"python": version, "requirements": list(peer.requirements), "packages": packages}
    stamp.write_text(json.dumps(record, indent=1) + "\n")
    return record


def _run(command: list[str], timeout_s: float) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s, env=env)
    return done.stdout


def peer_case(peer: Peer, text: Text, cache: Path, extra: Path | None) -> Case:
    """extra: the file that the script needs."""
    python = str(cache / "venvs" / peer.venv / "bin" / "python")

    def command(size: str, folder: Path) -> list[str]:
        script = [python, str(SCRIPTS / f"{peer.script}.py"), str(text.folder / size), str(folder / "out")]
        return [*script, str(extra)] if extra else script

    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return Case(
        peer.name,
        text,
        command,
        of_script,
        one_cpu(),
        against=peer.against,
        env={**env, **_QUIET},
        timeout_s=900,
        is_peer=True,
    )


def install_all(
    peers: Sequence[Peer], cache: Path, note: Callable[[str, str], None]
) -> dict[str, dict[str, object]]:
    """Peer -> what its environment holds; `note` is told of those that can't be installed."""
    installed = {}
    for peer in peers:
        try:
            installed[peer.name] = install(peer, cache)
        except NotInstalled as reason:
            note(peer.name, f"not installed: {reason}")
    return installed
