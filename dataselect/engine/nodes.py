"""What a Ray cluster's nodes must have: the driver's versions, its storage, room for its tasks."""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dataselect import __version__
from dataselect.core.errors import DataselectError
from dataselect.core.fingerprint import fingerprint
from dataselect.core.versions import versions
from dataselect.engine.interrupts import signals_after
from dataselect.engine.job import Job
from dataselect.engine.tasks import Task
from dataselect.io.store import is_file, store_at, temporary_name

_LOOK_S = 1.0
PATIENCE_S = 300.0
"""How long a task waits for a node with room for it: clusters that grow take some minutes."""

Complaint = str | None
"""Why a node can't take part."""


@dataclass(frozen=True)
class Shipped:
    """What every worker process gets once."""

    job: Job
    versions: dict[str, str]
    """The driver's."""
    token: str
    """What the run has put into `mark` of the work folder."""

    @property
    def mark(self) -> str:
        """A file that tells this work folder from another node's own of the same path."""
        return f"nodes/{fingerprint(self.job.output.folder)}"

    def complaint(self) -> Complaint:
        """Of the node that this process is on: its results would be others, or nobody would see them."""
        here = node_versions()
        other = [name for name in here if here[name] != self.versions.get(name)]
        if other:
            has, wanted = (", ".join(f"{n} {of.get(n)}" for n in other) for of in (here, self.versions))
            return f"has {has}, but the driver has {wanted}; install the same on every node"
        try:
            seen = store_at(self.job.work).read(self.mark).decode() == self.token
        except FileNotFoundError:
            seen = False
        return None if seen else not_shared(f"work: {self.job.work}")


def node_versions() -> dict[str, str]:
    """Of all that results may depend on, but for Python's, which Ray compares itself."""
    return {"dataselect": __version__, **{k: v for k, v in versions().items() if k != "python"}}


def not_shared(what: str) -> str:
    """The complaint of a node that lacks a file."""
    return f"does not see {what}; shards, models, work and output must lie on storage that every node shares"


def complaint_of(shipped: Shipped, files: Sequence[tuple[str, str]]) -> Complaint:
    """In a worker process, of its node. files: what people call it, and its path or URL."""
    try:
        unseen = next((file for file in files if not is_file(file[1])), None)
        return shipped.complaint() or (None if unseen is None else not_shared(unseen[0]))
    except DataselectError as error:
        return f"can't use the storage: {error}"


def _probe() -> Callable[[str, bytes, Sequence[tuple[str, str]]], tuple[str, Complaint]]:
    """What looks around on a node: a local function, so that Ray sends its code by value.

    One of this module could not even be loaded where dataselect is missing or of another version.
    """

    def probe(version: str, shipped: bytes, files: Sequence[tuple[str, str]]) -> tuple[str, str | None]:
        import pickle

        host = socket.gethostname()
        try:
            from dataselect import __version__ as here
        except ImportError as error:
            return host, f"can't import dataselect ({error}); pip install 'dataselect[ray]=={version}' there"
        if here != version:
            return host, f"has dataselect {here}, but the driver has {version}"
        from dataselect.engine.nodes import complaint_of

        return host, complaint_of(pickle.loads(shipped), files)  # noqa: S301 - the driver's

    return probe


def check_nodes(ray: Any, shipped: Shipped, shared: Sequence[tuple[str, str]]) -> None:
    """DataselectError where a node can't take part: better now than in a hundred tasks.

    shared   what every node must see besides the work folder: what people call it, and its path or URL
    """
    work = store_at(shipped.job.work)
    with work.commit(shipped.mark) as file:
        file.write(shipped.token.encode())
    output, name = store_at(shipped.job.output.folder), temporary_name()
    with output.commit(name):
        pass
    files = [*shared, (f"output.folder: {output.url}", f"{output.url}/{name}")]
    try:
        asked = [_ask(ray, node["NodeID"], shipped, files) for node in alive(ray)]
        said = [answer for answer in map(_answer, [ray] * len(asked), asked) if answer is not None]
    finally:
        output.delete(name)
    if said:
        more = f" ({len(said)} of {len(asked)} nodes complain)" if len(said) > 1 else ""
        raise DataselectError(f"--engine ray: node {said[0]}{more}")


def _ask(ray: Any, node: str, shipped: Shipped, files: Sequence[tuple[str, str]]) -> Any:
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": strategy, "name": "look around"}
    return ray.remote(_probe()).options(**options).remote(__version__, pickle.dumps(shipped), files)


def _answer(ray: Any, reference: Any) -> str | None:
    """The complaint with the node's name; None where there is none, or the node is gone meanwhile."""
    started = time.monotonic()
    ready: list[Any] = []
    while not ready:
        if time.monotonic() - started > PATIENCE_S:
            raise DataselectError("--engine ray: a node of the cluster starts no worker process")
        with signals_after():
            ready, _ = ray.wait([reference], timeout=_LOOK_S)
    try:
        with signals_after():
            host, complaint = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return f"can't run tasks: {str(error).strip().splitlines()[-1]}"
    except ray.exceptions.RayError:
        return None
    return None if complaint is None else f"{host} {complaint}"


def alive(ray: Any) -> list[dict[str, Any]]:
    """The cluster's nodes, as `ray.nodes`."""
    return [node for node in ray.nodes() if node["Alive"]]


class Room:
    """Sees that some node can hold a task; Ray itself would wait for such a node for ever, silently."""

    def __init__(self, ray: Any, say: Callable[[str], None]) -> None:
        self._ray, self._say = ray, say
        self._since: float | None = None

    def check(self, task: Task) -> None:
        """Say so where no node is large enough; DataselectError where that goes on for PATIENCE_S."""
        nodes = [node["Resources"] for node in alive(self._ray)]
        if any(has.get("CPU", 0) >= 1 and has.get("memory", 0) >= task.memory_bytes for has in nodes):
            self._since = None
            return
        now = time.monotonic()
        most = max((has.get("memory", 0) for has in nodes if has.get("CPU", 0) >= 1), default=None)
        offer = "no node offers a core" if most is None else f"the largest node offers {most / 1e9:.2f} GB"
        wants = f"{task.name}: wants 1 core and {task.memory_bytes / 1e9:.2f} GB, but {offer}"
        if self._since is None:
            self._since = now
            self._say(f"{wants}; waiting {PATIENCE_S / 60:.0f} minutes for a larger one to join")
        elif now - self._since > PATIENCE_S:
            raise DataselectError(
                f"{wants}; start larger nodes, or say what they have (ray start --num-cpus --memory), "
                "then run the same command again"
            )
