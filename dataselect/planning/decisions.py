"""Reuse or run, with the reason, as values: rendered by `plan`, obeyed by `run`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dataselect.core.errors import DataselectError
from dataselect.core.fingerprint import fingerprint
from dataselect.io.store import Store

Verdict = Literal["reuse", "run", "waits"]


@dataclass(frozen=True)
class Decision:
    """What happens to one task."""

    task: str
    """Stable name: 'read 1 raw-0001.jsonl.zst'."""
    phase: str
    verdict: Verdict
    reason: str


@dataclass
class Decisions:
    """All decisions of a run, and what the last run of this output was made of, to say what changed."""

    last: Mapping[str, Mapping[str, str]]
    made: list[Decision] = field(default_factory=list)
    parts: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, task: str, phase: str, *, done: bool, parts: Mapping[str, str]) -> bool:
        """Decide one task; returns whether it must run. parts: what its name is made of, by kind."""
        self.parts[task] = dict(parts)
        reason = "its artifacts are there" if done else self._why(task, parts)
        self.made.append(Decision(task, phase, "reuse" if done else "run", reason))
        return not done

    def wait(self, phase: str, n_tasks: int, for_: str) -> None:
        """Tasks whose names are known only after `for_` has run."""
        self.made.append(
            Decision(f"{n_tasks} task{'s' * (n_tasks != 1)}", phase, "waits", f"depends on: {for_}")
        )

    def _why(self, task: str, parts: Mapping[str, str]) -> str:
        if task not in self.last:
            return "first seen"
        changed = [kind for kind, value in parts.items() if self.last[task].get(kind) != value]
        return f"{' and '.join(changed)} changed" if changed else "its artifacts are missing"

    def count(self, verdict: Verdict) -> int:
        """Number of decisions with this verdict."""
        return sum(decision.verdict == verdict for decision in self.made)

    def as_json(self) -> list[dict[str, Any]]:
        """For `plan --json`."""
        return [asdict(decision) for decision in self.made]


def _name(output: str) -> str:
    return f"runs/{fingerprint(output)}.json"


def load_last(work: Store, output: str) -> dict[str, dict[str, str]]:
    """Parts of the tasks of the last run into this output folder; empty where there was none."""
    try:
        return dict(json.loads(work.read(_name(output))))
    except (OSError, ValueError):
        return {}


def save_last(work: Store, output: str, decisions: Decisions) -> None:
    """Remember this run's parts for the next one's reasons. Only explains; decides nothing."""
    try:
        with work.commit(_name(output)) as file:
            file.write(json.dumps(decisions.parts).encode())
    except DataselectError:
        return
