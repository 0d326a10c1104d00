"""What all tasks of a run share: sent once to every worker."""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from dataselect.core.clock import Clock
from dataselect.core.errors import TornArtifact
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.local_copies import forget, local_copy
from dataselect.io.reader import ReadSpec
from dataselect.io.store import Entry, LocalStore, Store, ahead, is_far, store_at
from dataselect.stages import load
from dataselect.stages.base import Model, Stage

S = TypeVar("S")
T = TypeVar("T")
_OPEN = 16  # bundles that stay open
_OPEN_FAR_BYTES = 80 << 20  # on an object store, where small ones stay in memory


@dataclass(frozen=True)
class StageCall:
    """How a worker makes a stage: the recipe's `use` and parameters, paths absolute."""

    use: str
    params: dict[str, Any]
    folder: str
    source: bytes | None
    """Of a stage of the user's own: the file as it was planned, which other machines may not see."""

    def load(self) -> type[Stage]:
        """The stage's class."""
        return load(self.use, Path(self.folder), self.source)

    def make(self) -> Stage:
        """The stage."""
        return self.load().model_validate(self.params)


@dataclass(frozen=True)
class HoldoutCall:
    """Which kept rows are held out; see planning.recipe.HoldoutSpec."""

    fraction: float
    by: str | None
    seed: int


@dataclass(frozen=True)
class ShuffleCall:
    """A global order of the output; see planning.recipe.ShuffleSpec."""

    seed: int
    shards: int | None


@dataclass(frozen=True)
class OutputCall:
    """How rows are written; see planning.recipe.OutputSpec."""

    folder: str
    format: str
    add: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    dropped: bool
    copies: str
    holdout: HoldoutCall | None = None
    shuffle: ShuffleCall | None = None
    phases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """Everything of a run that is the same for all its tasks."""

    read: ReadSpec
    stages: tuple[StageCall, ...]
    output: OutputCall
    work: str
    sample_share: float = 1.0
    quarantine_bad_shards: bool = False
    """Whether a bad shard is reported instead of stopping the run."""

    def kernels(self) -> list[str]:
        """Kernel modules that the recipe's stages need besides those that every run loads."""
        return sorted({name for call in self.stages for name in call.load().kernels})


@dataclass
class Context:
    """A worker's view of the run: stages made once, stores opened once."""

    job: Job
    report: Callable[[int, int], None] = field(default=lambda n_docs, n_bytes: None)
    """Called with documents and text bytes done since the last call."""
    _models: dict[str, Model] = field(default_factory=dict)
    _bundles: OrderedDict[str, tuple[Bundle, Entry | None]] = field(default_factory=OrderedDict)
    """Open ones, with the file that each was on a disk."""
    _open_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def stages(self) -> list[Stage]:
        """The recipe's stages."""
        return [call.make() for call in self.job.stages]

    @cached_property
    def column_stages(self) -> dict[str, int]:
        """Column name -> index of the stage that adds it."""
        return {name: i for i, stage in enumerate(self.stages) for name in stage.output_columns()}

    @cached_property
    def work(self) -> Store:
        """Where artifacts are."""
        return store_at(self.job.work)

    @cached_property
    def output(self) -> Store:
        """Where shards are published."""
        return store_at(self.job.output.folder, durable=True)

    def bundle(self, name: str) -> Bundle:
        """An artifact of the work store; the ones used last stay open.

        A barrier's artifact is asked for again with every segment and by every task, and its index is as long
        as the list of segments: parsing it takes 1 us for each of them.
        """
        with self._lock:
            if name in self._bundles:
                self._bundles.move_to_end(name)
                return self._bundles[name][0]
        far = is_far(self.work)
        entry = None if far else self.work.stat(name)
        bundle = Bundle(self.work, name)
        with self._lock:
            replaced = self._bundles.pop(name, None)
            self._bundles[name] = bundle, entry
            self._open_bytes += bundle.most_bytes - (replaced[0].most_bytes if replaced else 0)
            while self._open_bytes > _OPEN_FAR_BYTES if far else len(self._bundles) > _OPEN:
                self._open_bytes -= self._bundles.popitem(last=False)[1][0].most_bytes
        return bundle

    def ahead(self, call: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """call(item) for every item, in order; on an object store by threads that work ahead.

        For tasks that look at every segment in turn: `call` reads artifacts of one, by some 8 requests.
        """
        _ = self.stages  # made once, not by every thread
        return ahead(call, items, far=is_far(self.work))

    def begin(self) -> None:
        """A task begins: a damaged artifact may have been replaced since, and is opened anew."""
        if not is_far(self.work):
            stale = [name for name, (_, entry) in self._bundles.items() if self.work.stat(name) != entry]
            for name in stale:
                del self._bundles[name]

    def failed(self) -> None:
        """A task failed, perhaps by a damaged artifact: what was kept of any is forgotten."""
        self._bundles.clear()
        self._open_bytes = 0
        self._models.clear()

    def model(self, name: str | None) -> Model:
        """All arrays of a prepared or fitted artifact, mapped; empty for None.

        Of one on an object store this machine's copy is mapped: one for all workers and tasks.
        """
        if name is None:
            return {}
        if name not in self._models:  # kept, because opening one verifies its digest
            self._models[name] = self._mapped(name)
        return self._models[name]

    def _mapped(self, name: str) -> Model:
        try:
            path = local_copy(self.work, name)
        except FileNotFoundError:
            raise TornArtifact(self.work.url, name) from None
        try:
            return Bundle(LocalStore(path.parent), path.name).arrays()
        except TornArtifact:
            forget(path)
            raise TornArtifact(self.work.url, name) from None

    def commit(self, name: str, fill: Callable[[BundleWriter], dict[str, Any]]) -> str:
        """Write an artifact; `fill` adds its sections and returns its meta. Returns its digest."""
        with self.work.commit(name) as file:
            writer = BundleWriter(file)
            return writer.finish(fill(writer))


Figures = dict[str, Any]
"""A task's result: what of its artifact the plan goes on with, its seconds and its memory."""


def figures(clock: Clock) -> Figures:
    """Of a task that has committed its artifact, for its result; never part of an artifact."""
    clock.lap("commit")
    return {"seconds": clock.seconds, "max_rss_bytes": max_rss_bytes()}


def max_rss_bytes() -> int:
    """Peak resident memory of this process.

    From /proc where there is one: getrusage also counts what the parent held before the exec.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
