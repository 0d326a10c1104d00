"""Every case once a round, in the same order."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cases import Case, Outcome, one_cpu, own_env
from bench.measure import CommandFailed, Usage, measure
from bench.texts import SIZES

Kernels = dict[str, dict[str, float]]
"""Text -> kernel -> MB per CPU second."""

TRIES = 2
"""So often may a peer fail before it is left out."""


@dataclass(frozen=True)
class Pair:
    """A case once, at both sizes."""

    usages: dict[str, Usage]
    outcomes: dict[str, Outcome]


@dataclass
class Runs:
    """All that was measured so far."""

    pairs: dict[str, list[Pair | None]] = field(default_factory=dict)
    """Case -> one a round; None where it failed, shorter where its turn has not come."""
    kernels: list[Kernels] = field(default_factory=list)
    failures: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Peer -> messages."""


def run_once(case: Case, size: str, scratch: Path) -> tuple[Usage, Outcome]:
    """Measure a case in folders of its own; CommandFailed also where it did not read every row."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    stdout, stderr = folder / "stdout", folder / "stderr"
    try:
        usage = measure(case.command(size, folder), case.cpus, stdout, stderr, case.env, case.timeout_s)
        try:
            outcome = case.outcome(stdout.read_text())
        except (ValueError, KeyError) as error:
            raise CommandFailed(f"no counts at the end of what it printed: {error!r}") from error
    finally:
        case.clean(folder)
        shutil.rmtree(folder)
    if outcome.n_read != (wanted := case.text.sizes[size]["n_docs"]):
        raise CommandFailed(f"it read {outcome.n_read:,} rows; the text has {wanted:,}")
    return usage, outcome


def run_pair(case: Case, scratch: Path) -> Pair:
    """1x and 2x."""
    usages, outcomes = {}, {}
    for size in SIZES:
        usages[size], outcomes[size] = run_once(case, size, scratch)
    return Pair(usages, outcomes)


def run_kernels(
    texts: dict[str, list[str]], mb: float, model: Path | None, runs: int, scratch: Path
) -> Kernels:
    """Rates of the kernels alone on several texts, each given by its shards."""
    rates = {}
    stdout, stderr = scratch / "kernels.json", scratch / "kernels.err"
    for name, shards in texts.items():
        command = [sys.executable, "-m", "bench.kernels", *shards, "--json", "--mb", str(mb)]
        command += ["--runs", str(runs), *(["--model", str(model)] if model else [])]
        measure(command, one_cpu(), stdout, stderr, own_env())
        rates[name] = json.loads(stdout.read_text())
    return rates


def run_rounds(
    cases: Sequence[Case], kernels: Callable[[], Kernels] | None, n_rounds: int, scratch: Path
) -> Iterator[Runs]:
    """Yields what there is after each case. CommandFailed where a case of ours fails, not for a peer's."""
    runs = Runs(pairs={case.name: [] for case in cases})
    for number in range(1, n_rounds + 1):
        for case in cases:
            if len(runs.failures[case.name]) < TRIES:
                runs.pairs[case.name].append(_one(case, scratch, runs.failures[case.name]))
                _tell(f"round {number}/{n_rounds}", case, runs)
                yield runs
        if kernels:
            runs.kernels.append(kernels())
            yield runs


def _one(case: Case, scratch: Path, failures: list[str]) -> Pair | None:
    try:
        return run_pair(case, scratch)
    except CommandFailed as failed:
        if not case.is_peer:
            raise CommandFailed(f"{case.name}: {failed}") from failed
        failures.append(str(failed))
        return None


def _tell(head: str, case: Case, runs: Runs) -> None:
    pair = runs.pairs[case.name][-1]
    shown = (
        ", ".join(f"{size} {usage.cpu_s:.2f} s CPU" for size, usage in pair.usages.items())
        if pair
        else f"failed: {runs.failures[case.name][-1].splitlines()[-1]}"
    )
    print(f"{head}  {case.name}: {shown}", file=sys.stderr, flush=True)
