"""The Ray engine: the same tasks as Ray Core tasks, on the cores and memory of a cluster.

Tasks share nothing but the store: no actors, no objects but a task's arguments and its small result. So a
node that is lost costs the tasks it was running, which Ray runs again elsewhere; what they had committed
is whole or not there. The driver holds the plan, and passes on names, never data.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from dataselect.core.errors import DataselectError
from dataselect.engine.job import Context, Job
from dataselect.engine.tasks import TRIES, Progress, Task, died, execute, no_progress
from dataselect.io.store import LocalStore, store_at, temporary_name

_IN_FLIGHT = 4
"""Tasks submitted for each that can run at once: the cluster never waits for the driver."""

_context: tuple[Job, Context] | None = None


def run_task(job: Job, task: Task) -> tuple[Any, int, int]:
    """In a worker process: the task's result (or the DataselectError it raised), documents, bytes read."""
    global _context  # noqa: PLW0603 - one process serves many tasks of a run; stages are made once
    if _context is None or _context[0] != job:
        _context = job, Context(job)
    context = _context[1]
    done = [0, 0]

    def count(n_docs: int, n_bytes: int) -> None:
        done[0] += n_docs
        done[1] += n_bytes

    context.report = count
    try:
        return execute(context, task), done[0], done[1]
    except DataselectError as error:
        return error, done[0], done[1]


def _check_reachable(address: str | None) -> None:
    """DataselectError where nothing listens at host:port; Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise DataselectError(f"--address {address}: no Ray cluster listens there: {error}") from None


def sees(folder: str, name: str) -> str | None:
    """The host's name where this node does not see the file, else None."""
    return None if store_at(folder).stat(name) is not None else socket.gethostname()


class RayEngine:
    """Runs tasks on a Ray cluster; use as a context manager.

    n_workers limits the tasks at a time; by default all the cores of the cluster work. address as for
    `ray.init`: None takes RAY_ADDRESS or a cluster on this machine, else starts one.
    """

    def __init__(self, job: Job, n_workers: int | None, address: str | None = None) -> None:
        self._job, self._limit, self._address = job, n_workers, address
        self.n_workers = n_workers or 0
        self._ray: Any = None
        self._started = False

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._started:
            self._ray.shutdown()

    def run(self, tasks: Sequence[Task], progress: Progress = no_progress) -> Iterator[tuple[int, Any]]:
        """As `tasks.Engine` says."""
        self._connect()
        remote = self._ray.remote(run_task)
        waiting = list(range(len(tasks)))[::-1]
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                window = self._window()  # a cluster may grow
                while waiting and len(running) < window:
                    index = waiting.pop()
                    running[self._submit(remote, tasks[index])] = index
                ready, _ = self._ray.wait(list(running), num_returns=1)
                index = running.pop(ready[0])
                yield index, self._result(ready[0], tasks[index], progress)
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _connect(self) -> None:
        if self._ray is not None:
            return
        # Ray takes the folder of the driver's script for its workers' path; and its own metrics agent and
        # usage report are no business of a data pipeline.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise DataselectError("--engine ray: ray is missing; pip install 'dataselect[ray]'") from None
        self._ray = ray
        if not ray.is_initialized():
            _check_reachable(self._address)
            try:
                ray.init(address=self._address, log_to_driver=False, include_dashboard=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise DataselectError(f"--engine ray: no cluster at {self._address}: {error}") from None
            self._started = True
        if self._limit is None:
            self.n_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._check_shared()

    def _window(self) -> int:
        return self._limit or _IN_FLIGHT * max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _submit(self, remote: Any, task: Task) -> Any:
        options = {"num_cpus": 1, "memory": task.memory_bytes, "max_retries": TRIES - 1, "name": task.name}
        return remote.options(**options).remote(self._reference, task)

    def _result(self, reference: Any, task: Task, progress: Progress) -> Any:
        errors = self._ray.exceptions
        try:
            result, n_docs, n_bytes = self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            raise died(task, str(error).strip().splitlines()[0]) from None
        except errors.RayError as error:
            raise DataselectError(f"{task.name}: {str(error).strip().splitlines()[-1]}") from None
        progress(n_docs, n_bytes)
        if isinstance(result, DataselectError):
            raise result
        return result

    def _check_shared(self) -> None:
        """DataselectError where a node does not see the work folder: better now than in a hundred tasks."""
        self._reference = self._ray.put(self._job)
        store = store_at(self._job.work)
        if not isinstance(store, LocalStore):
            return
        name = temporary_name()
        with store.commit(name):
            pass
        try:
            nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
            blind = [host for host in self._ray.get([self._probe(node, name) for node in nodes]) if host]
        finally:
            store.delete(name)
        if blind:
            raise DataselectError(
                f"work: {self._job.work} is not seen by {', '.join(sorted(set(blind)))}: "
                "shards, work and output must lie on storage that every node shares"
            )

    def _probe(self, node: str, name: str) -> Any:
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        probe = self._ray.remote(sees).options(num_cpus=0, scheduling_strategy=strategy)
        return probe.remote(self._job.work, name)
