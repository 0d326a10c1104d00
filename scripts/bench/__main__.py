"""Command line of the benchmark."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bench
from bench.cases import ROOT, Case, own_cases, own_env, quickstart_stages
from bench.figures import summarise
from bench.machine import machine, versions
from bench.measure import CommandFailed, become_subreaper
from bench.peers import PEERS, Peer, install_all, peer_case
from bench.rounds import Kernels, run_kernels, run_once, run_rounds
from bench.table import render
from bench.texts import SIZES, Text, Texts, make_texts, whole_spec

SAMPLE = ROOT / ".sample"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dataselect" / "bench"
CORPUS_VARIABLE = "DATASELECT_BENCH_CORPUS"
KERNELS = "kernels"


def options_from(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """SystemExit with a message where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="bench", description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5)
    add("--only", metavar="PATTERN", help="cases whose name has this regular expression, beside their floors")
    add("--peers", action="store_true", help="also other tools, installed from PyPI")
    add("--quick", action="store_true", help="a smoke test: one round of small texts")
    add("--json", type=Path, metavar="OUT", help="write all figures, after every case")
    corpus = os.environ.get(CORPUS_VARIABLE, SAMPLE / "raw")
    add("--corpus", type=Path, default=corpus, help=f"folder of real shards (or ${CORPUS_VARIABLE})")
    add("--field", default="text", help="the field that holds the text")
    add("--mb", type=float, default=512, help="10^6 bytes of text in 1x; half of it in bare text")
    add("--peer-scale", type=float, default=1, help="times the usual size of the peers' texts")
    add("--kernel-mb", type=float, default=32, help="text for the kernels; 0: none")
    add("--model", type=Path, help="fastText .bin with the label hq; default: one of usual size is trained")
    add("--out", type=Path, default=SAMPLE / "bench", help="folder for texts and runs")
    add("--cache", type=Path, default=CACHE, help="folder for the peers' environments and the trained model")
    options = parser.parse_args(arguments)
    if options.quick:
        options.mb, options.rounds, options.kernel_mb = min(options.mb, 32), 1, min(options.kernel_mb, 8)
        options.peer_scale = min(options.peer_scale, 0.25)
        options.model = options.model or SAMPLE / "quality.bin"
    if options.rounds < 1 or options.mb <= 0 or options.peer_scale <= 0:
        parser.error("--rounds, --mb and --peer-scale must be positive")
    return options


def make_sample() -> None:
    """The quick start's corpus, where it is missing."""
    if not (SAMPLE / "README.md").exists():
        script = str(ROOT / "scripts" / "make_sample.py")
        subprocess.run([sys.executable, script, str(SAMPLE)], check=True, stdout=2, env=own_env())


def the_model(options: argparse.Namespace, note: Callable[[str, str], None]) -> Path | None:
    """The model to score with: given, or trained once with fastText's usual sizes (dim 100, 2 million buckets)."""
    model: Path = options.model or options.cache / "model-dim100.bin"
    if not options.model and not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        train = [sys.executable, "-m", "dataselect", "train", "--out", str(model)]
        train += ["--positive", str(SAMPLE / "hq.jsonl"), "--negative", str(SAMPLE / "lq.jsonl")]
        done = subprocess.run([*train, "--json"], capture_output=True, text=True, check=False, env=own_env())
        if done.returncode:
            note("fasttext_quality", f"no model was trained: {done.stderr.strip().splitlines()[-1]}")
    if not model.exists():
        note("fasttext_quality", f"left out: no {model}")
        return None
    return model.resolve()


def target_of(stages: Sequence[dict[str, Any]]) -> Path:
    """The quick start's target set."""
    return next(Path(stage["target"]) for stage in stages if stage["use"] == "ngram_importance")


def wanted(name: str, options: argparse.Namespace) -> bool:
    """Whether --only has it."""
    return not options.only or re.search(options.only, name, re.IGNORECASE) is not None


def chosen(cases: Sequence[Case], options: argparse.Namespace) -> list[Case]:
    """Those of --only, and the floors of their texts."""
    found = [case for case in cases if wanted(case.name, options)]
    floors = {case.floor for case in found} | {case.name for case in found}
    return [case for case in cases if case.name in floors]


class Bench:
    """Everything that is made before the rounds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.notes: list[str] = []
        make_sample()
        options.out.mkdir(parents=True, exist_ok=True)
        stages, left_out = quickstart_stages()
        self.notes += left_out
        self.model = the_model(options, self.note)
        named = [peer for peer in PEERS if options.peers and wanted(peer.name, options)]
        self.peers = install_all(named, options.cache.expanduser().resolve(), self.note)
        extras = {"model": self.model, "target": target_of(stages)}
        peers = [peer for peer in named if peer.name in self.peers and extras.get(peer.extra or "", True)]
        self.texts, whole, bare = self.make_texts(peers)
        cases = own_cases(whole, bare, stages, self.model)
        cases += [
            peer_case(
                peer,
                self.texts.by_spec[peer.spec(options.peer_scale)],
                options.cache.expanduser().resolve(),
                extras.get(peer.extra or ""),
            )
            for peer in peers
        ]
        self.cases = chosen(cases, options)
        self.kernel_texts = {text.kind: text.shards("1x") for text in (bare, whole)}

    def note(self, name: str, message: str) -> None:
        """Shown above the table."""
        self.notes.append(f"{name}: {message}")

    def make_texts(self, peers: Sequence[Peer]) -> tuple[Texts, Text, Text]:
        """All texts, and the two of our own cases."""
        options = self.options
        own = [whole_spec("suffixed", options.mb), whole_spec("bare", options.mb / 2)]
        specs = list(dict.fromkeys([*own, *(peer.spec(options.peer_scale) for peer in peers)]))
        folder = options.out.resolve() / "texts"
        texts = make_texts(options.corpus.expanduser().resolve(), options.field, folder, specs)
        return texts, texts.by_spec[own[0]], texts.by_spec[own[1]]

    def rounds(self) -> Iterator[dict[str, Any]]:
        """The figures after every case."""
        kernels_wanted = self.options.kernel_mb and wanted(KERNELS, self.options)
        if not self.cases and not kernels_wanted:
            sys.exit(f"--only {self.options.only}: no case has it; see the names in a run with --quick")
        become_subreaper()
        with tempfile.TemporaryDirectory(prefix="runs-", dir=self.options.out) as folder:
            scratch = Path(folder).resolve()
            kernels: Callable[[], Kernels] = partial(
                run_kernels, self.kernel_texts, self.options.kernel_mb, self.model, 3, scratch
            )
            self.warm_up(scratch)
            measured = kernels if kernels_wanted else None
            for runs in run_rounds(self.cases, measured, self.options.rounds, scratch):
                yield self.figures() | summarise(self.cases, runs)

    def warm_up(self, scratch: Path) -> None:
        """Shards into the page cache, kernels into numba's; the figures are thrown away."""
        for text in {case.text.folder: case.text for case in self.cases}.values():
            for path in (text.folder / "2x").iterdir():
                with path.open("rb") as file:
                    while file.read(1 << 22):
                        pass
        for case in [case for case in self.cases if case.command.__module__ == own_cases.__module__][-1:]:
            run_once(case, SIZES[0], scratch)

    def figures(self) -> dict[str, Any]:
        """What --json writes, but for the measurements."""
        options = self.options
        return {
            "machine": machine(),
            "versions": versions(),
            "peers": self.peers,
            "notes": self.notes,
            "options": {key: str(value) for key, value in vars(options).items()},
            "base": self.texts.base,
            "suffix_bytes": self.texts.suffix_bytes,
        }


def main() -> None:
    options = options_from()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: the running command and scratch go too
    if not sys.platform.startswith("linux"):
        sys.exit("the benchmark needs Linux: it pins processes to a core and collects those that a run leaves")
    result = None
    try:
        for result in Bench(options).rounds():
            if options.json:
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    except CommandFailed as failed:
        sys.exit(str(failed))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:  # a run that fails or is stopped still shows what it has
        if result:
            with contextlib.suppress(BrokenPipeError):
                print(render(result))


if __name__ == "__main__":
    main()
