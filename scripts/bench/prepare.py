"""Everything that is made before the rounds: sample, model, environments, texts, cases."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench.cases import (
    EXTRAS,
    FILTERS,
    ON_STORE,
    ROOT,
    Case,
    elsewhere_cases,
    missing,
    of_run,
    own_cases,
    own_env,
    quickstart_stages,
)
from bench.endpoint import Endpoint, endpoint
from bench.figures import summarise
from bench.machine import machine, versions
from bench.measure import become_subreaper
from bench.peers import PEERS, Peer, install_all, peer_case
from bench.rounds import Kernels, run_kernels, run_once, run_rounds
from bench.texts import SIZES, Text, Texts, make_texts, whole_spec

SAMPLE = ROOT / ".sample"
KERNELS = "kernels"


def make_sample() -> None:
    """The quick start's corpus, where it is missing."""
    if not (SAMPLE / "README.md").exists():
        script = str(ROOT / "scripts" / "make_sample.py")
        subprocess.run([sys.executable, script, str(SAMPLE)], check=True, stdout=2, env=own_env())


def the_model(options: argparse.Namespace, note: Callable[[str, str], None]) -> Path | None:
    """The model to score with: given, or trained once at the usual size (dim 100, 2 million buckets)."""
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
    return options.only is None or options.only.search(name) is not None


def chosen(cases: Sequence[Case], options: argparse.Namespace) -> list[Case]:
    """Those of --only, and their floors."""
    found = [case for case in cases if wanted(case.name, options)]
    floors = {case.floor for case in found} | {case.name for case in found}
    return [case for case in cases if case.name in floors]


class Bench:
    """Everything that is made before the rounds."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        """stack: what runs until the last round."""
        self.options = options
        self.notes: list[str] = []
        self.versions = versions()
        make_sample()
        options.out.mkdir(parents=True, exist_ok=True)
        stages, left_out = quickstart_stages()
        self.notes += left_out
        self.model = the_model(options, self.note)
        named = [peer for peer in PEERS if options.peers and wanted(peer.name, options)]
        cache = options.cache.expanduser().resolve()
        self.peers = install_all(named, cache, self.note)
        extras = {"model": self.model, "target": target_of(stages)}
        peers = [peer for peer in named if peer.name in self.peers and extras.get(peer.extra or "", True)]
        self.texts, whole, bare = self.make_texts(peers)
        cases = own_cases(whole, bare, stages, self.model)
        cases[5:5] = elsewhere_cases(whole, stages, self.endpoint_for(whole, stack))
        for peer in peers:
            text = self.texts.by_spec[peer.spec(options.peer_scale)]
            cases.append(peer_case(peer, text, cache, extras.get(peer.extra or "")))
        self.cases = chosen(cases, options)
        if not self.cases and not wanted(KERNELS, options):
            names = ", ".join([*(case.name for case in cases), KERNELS])
            sys.exit(f"--only {options.only.pattern}: found in none of {names}")
        self.kernel_texts = {text.kind: text.shards("1x") for text in (bare, whole)}

    def note(self, name: str, message: str) -> None:
        """Shown above the table."""
        self.notes.append(f"{name}: {message}")

    def endpoint_for(self, text: Text, stack: ExitStack) -> Endpoint | None:
        """One that holds the text; None where nothing needs it. Says which cases are left out."""
        for name in filter(partial(wanted, options=self.options), EXTRAS):
            if packages := missing(name):
                self.note(name, f"left out: needs {', '.join(packages)} (`make test-all` installs them)")
        if missing(ON_STORE) or not wanted(ON_STORE, self.options):
            return None
        store = stack.enter_context(endpoint(own_env()))
        store.upload(text)
        return store

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
        own = [case for case in self.cases if case.outcome is of_run]
        for case in {case.name: case for case in own if case in own[-1:] or case.name == FILTERS}.values():
            run_once(case, SIZES[0], scratch)

    def figures(self) -> dict[str, Any]:
        """What --json writes, but for the measurements."""
        options = self.options
        return {
            "machine": machine(),
            "versions": self.versions,
            "peers": self.peers,
            "notes": self.notes,
            "options": {key: str(value) for key, value in vars(options).items() if value is not None},
            "base": self.texts.base,
            "suffix_bytes": self.texts.suffix_bytes,
        }
