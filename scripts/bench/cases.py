"""What is measured of dataselect, and the floor beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.endpoint import BUCKET, Endpoint
from bench.measure import ONE_THREAD
from bench.texts import Text

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "configs" / "quickstart.yaml"
FINEWEB = ROOT / "configs" / "fineweb.yaml"
FILTERS = "heuristic_filters"
FLOOR = {"suffixed": "copy .jsonl.zst", "bare": "copy .jsonl.zst, bare"}
FLOOR_PARQUET = "copy .parquet"
RECIPE_CASE, ON_STORE, ON_RAY = "recipe", "recipe, all on S3", "recipe, Ray"
EXTRAS = {ON_STORE: ("s3fs", "moto"), ON_RAY: ("ray",)}
"""Case -> the packages that it needs."""
WORKERS = ("recipe, 1 worker, wall", "recipe, 2 workers, wall")


class Outcome(NamedTuple):
    """What a command said of itself."""

    n_read: int
    n_kept: int
    alone_cpu_s: float | None = None
    """A peer: CPU seconds of the part that one of our kernels is compared with."""
    seconds: Mapping[str, float] = {}
    """dataselect: worker seconds by part."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    text: Text
    command: Callable[[str, Path], list[str]]
    """Of a size and a new folder to write to."""
    outcome: Callable[[str], Outcome]
    """Of what the command printed."""
    cpus: set[int]
    floor: str | None = None
    """The case that it is compared with: of most the one that copies the same text."""
    against: Sequence[str] = ()
    """A peer: our cases that do the same job."""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 3600
    is_peer: bool = False
    by_wall: bool = False
    clean: Callable[[Path], None] = lambda folder: None
    """Called when the case has run, with its folder: removes what it left elsewhere."""


def of_script(printed: str) -> Outcome:
    """The last line is JSON; a peer may have talked before."""
    counts = json.loads(printed.rstrip().rpartition("\n")[2])
    return Outcome(counts["rows"], counts["kept"], counts.get("alone_cpu_s"))


def of_run(printed: str) -> Outcome:
    """`dataselect run --json`."""
    report = json.loads(printed)
    return Outcome(report["rows"]["in"], report["rows"]["kept"], seconds=report.get("seconds", {}))


def own_env() -> dict[str, str]:
    """Of our own commands: one thread a pool, and modules from here."""
    scripts = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [scripts, str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **ONE_THREAD, "PYTHONPATH": path}


def floor_case(name: str, what: str, text: Text, cpus: set[int], floor: str | None = None) -> Case:
    """what: as in floor.py."""
    suffix = ".parquet" if what == "parquet" else ".jsonl.zst"

    def command(size: str, folder: Path) -> list[str]:
        start = [sys.executable, "-m", "bench.floor", what, str(folder / "out")]
        return [*start, *text.shards(size, suffix)]

    return Case(name, text, command, of_script, cpus, floor, env=own_env())


@dataclass(frozen=True)
class Run:
    """How a recipe case differs from the usual one: JSONL in, no dropped rows out, one worker."""

    suffix: str = ".jsonl.zst"
    dropped: bool = False
    n_workers: int = 1
    floor: str | None = None
    engine: str = "local"
    store: Endpoint | None = None
    """Where shards, work and output are, if not on the local disk."""


def recipe_case(
    name: str, stages: Sequence[dict[str, Any]], text: Text, cpus: set[int], how: Run | None = None
) -> Case:
    """`dataselect run` of these stages."""
    how = how or Run()
    store = how.store

    def place(folder: Path) -> str:
        return f"{BUCKET}/{folder.name}" if store else str(folder)

    def command(size: str, folder: Path) -> list[str]:
        shards = store.shards(text, size) if store else text.shards(size, how.suffix)
        recipe = {
            "input": {"shards": shards, "text": "text", "id": "id"},
            "stages": list(stages),
            "output": {"folder": f"{place(folder)}/out", "format": "same", "dropped": how.dropped},
            "work": f"{place(folder)}/work",
        }
        path = folder / "recipe.yaml"
        path.write_text(json.dumps(recipe))  # JSON is YAML
        run = [sys.executable, "-m", "dataselect", "run", str(path), "--workers", str(how.n_workers)]
        address = ["--address", "local"] if how.engine == "ray" else []
        return [*run, "--engine", how.engine, *address, "--quiet", "--json"]

    return Case(
        name,
        text,
        command,
        of_run,
        cpus,
        how.floor or FLOOR[text.kind],
        env=store.env if store else own_env(),
        by_wall=name in WORKERS or how.engine == "ray",  # which waits for no worker: their CPU time is lost
        clean=lambda folder: store.drop(place(folder)) if store else None,
    )


def quickstart_stages(recipe: Path = RECIPE) -> tuple[list[dict[str, Any]], list[str]]:
    """The quick start's stages with absolute paths, and notes on those left out for want of a model."""
    stages, left_out = [], []
    for given in yaml.safe_load(recipe.read_text("utf-8"))["stages"]:
        stage = dict(given)
        for key in ("model", "target"):
            if key in stage:
                stage[key] = str((recipe.parent / stage[key]).resolve())
        if stage.get("optional") and not Path(stage["model"]).exists():
            left_out.append(f"{stage['use']} is left out: no {stage['model']} (`make run` trains it)")
        else:
            stages.append(stage)
    return stages, left_out


def heuristic_filters() -> list[dict[str, Any]]:
    """FineWeb's filters by datatrove's definitions: Gopher's rules, C4's and its own."""
    stages = yaml.safe_load(FINEWEB.read_text("utf-8"))["stages"]
    return [stage for stage in stages if stage["use"].endswith("@datatrove")]


def own_cases(whole: Text, bare: Text, stages: list[dict[str, Any]], model: Path | None) -> list[Case]:
    """Floors, whole recipe, stages alone (those that look words up on bare text), one and two workers.

    model: scored by `fasttext_quality` alone, and by the package where peers run.
    """
    cpus = os.sched_getaffinity(0)
    one = one_cpu()
    by_use = {stage["use"]: stage for stage in stages}
    parquet = Run(suffix=".parquet", floor=FLOOR_PARQUET)
    cases = [
        floor_case(FLOOR["suffixed"], "jsonl", whole, one),
        floor_case(FLOOR_PARQUET, "parquet", whole, one),
        floor_case(FLOOR["bare"], "jsonl", bare, one),
        floor_case("reader alone", "read", whole, one, FLOOR["suffixed"]),
        recipe_case(RECIPE_CASE, stages, whole, one),
        recipe_case("recipe, dropped rows too", stages, whole, one, Run(dropped=True)),
        recipe_case("length_filter", [by_use["length_filter"]], whole, one),
        recipe_case("length_filter .parquet", [by_use["length_filter"]], whole, one, parquet),
        recipe_case("exact_dedup", [by_use["exact_dedup"]], whole, one),
        recipe_case("minhash_dedup", [by_use["minhash_dedup"]], whole, one),
    ]
    if model:
        quality = {"use": "fasttext_quality", "model": str(model), "label": "hq", "min": 0.02}
        cases.append(recipe_case("fasttext_quality", [quality], bare, one))
    cases.append(recipe_case(FILTERS, heuristic_filters(), bare, one))
    weigh, select = by_use["ngram_importance"], by_use["select"]
    cases.append(recipe_case("ngram_importance", [weigh], bare, one))
    cases.append(recipe_case("ngram_importance+select", [weigh, select], bare, one))
    if len(cpus) > 1:
        two = set(sorted(cpus)[-2:])
        cases += [
            recipe_case(name, stages, whole, two, Run(n_workers=n)) for n, name in enumerate(WORKERS, start=1)
        ]
    return cases


def elsewhere_cases(whole: Text, stages: list[dict[str, Any]], store: Endpoint | None) -> list[Case]:
    """The whole recipe on the Ray engine, and with everything on an object store."""
    on = {ON_STORE: Run(store=store, floor=RECIPE_CASE), ON_RAY: Run(engine="ray", floor=RECIPE_CASE)}
    return [
        recipe_case(name, stages, whole, one_cpu(), how)
        for name, how in on.items()
        if not missing(name) and (store or name != ON_STORE)
    ]


def missing(case: str) -> list[str]:
    """Packages that a case needs and that are not installed."""
    return [name for name in EXTRAS[case] if importlib.util.find_spec(name) is None]


def one_cpu() -> set[int]:
    """The core that pinned commands run on; interrupts prefer the first."""
    return {max(os.sched_getaffinity(0))}
