"""The Ray engine: the same tasks as Ray Core tasks, on the cores and memory of a cluster.

Tasks share nothing but the store: no actors, no objects but a task's arguments and its small result. So a
node that is lost costs the tasks it was running, which Ray runs again elsewhere; what they had committed
is whole or not there. The driver holds the plan, and passes on names, never data.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from dataselect.core.errors import DataselectError
from dataselect.engine.interrupts import signals_after
from dataselect.engine.job import Context, Job
from dataselect.engine.nodes import Room, Shipped, check_nodes, node_versions
from dataselect.engine.tasks import TRIES, Progress, Task, died, execute, no_progress

_IN_FLIGHT = 4
"""Tasks submitted for each that can run at once: the cluster never waits for the driver."""
_LOOK_S = 1.0
"""How often the cluster is asked for its nodes, which takes it 1 ms, and signals are looked at."""

_RAY_ENVIRONMENT = {
    # By default a task that is too large for its node is tried for ever.
    "RAY_task_oom_retries": str(TRIES - 1),
    # A report to Ray's makers is no business of a data pipeline.
    "RAY_USAGE_STATS_ENABLED": "0",
}
_QUIETLY: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "logging_level": "warning"}

_context: tuple[Shipped, Context] | None = None


def run_task(shipped: Shipped, task: Task) -> tuple[Any, int, int]:
    """In a worker process: the task's result (or the DataselectError it raised), documents, bytes read."""
    done = [0, 0]

    def count(n_docs: int, n_bytes: int) -> None:
        done[0] += n_docs
        done[1] += n_bytes

    try:
        context = _context_of(shipped)
        context.report = count
        return execute(context, task), done[0], done[1]
    except DataselectError as error:
        return error, done[0], done[1]


def _context_of(shipped: Shipped) -> Context:
    """One process serves many tasks of a run: stages are made once."""
    global _context  # noqa: PLW0603 - see above
    if _context is None or _context[0] != shipped:
        complaint = shipped.complaint()  # a node that joined after the start has not been asked
        if complaint is not None:
            raise DataselectError(f"--engine ray: node {socket.gethostname()} {complaint}")
        _context = shipped, Context(shipped.job)
    return _context[1]


def _check_reachable(address: str) -> None:
    """DataselectError where nothing listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise DataselectError(f"--address {address}: no Ray cluster listens there: {error}") from None


def _out_of_memory(task: Task, message: str) -> DataselectError:
    found = re.search(r"\(IP: ([^,]+),.*? was (.*? limit)", message)
    where = f", last on {found[1]} ({found[2]})" if found else ""
    return DataselectError(
        f"{task.name}: its node ran out of memory {TRIES} times{where}, and Ray ended it; "
        "offer fewer cores of each node (ray start --num-cpus), or take larger ones"
    )


class RayEngine:
    """Runs tasks on a Ray cluster; use as a context manager.

    n_workers limits the tasks at a time; by default all the cores of the cluster work. address as for
    `ray.init`: None takes RAY_ADDRESS or a cluster on this machine, else starts one. shared: files that every
    node must see: what people call it, and its path or URL.
    """

    def __init__(
        self,
        job: Job,
        n_workers: int | None,
        address: str | None = None,
        shared: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._job, self._limit, self._shared = job, n_workers, shared
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self.n_workers = n_workers or 0
        self._ray: Any = None
        self._started = False
        self._window, self._looked = 0, 0.0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> RayEngine:
        # stdout is for results, and Ray prints there what the cluster complains of.
        self._open.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()
        if self._started:
            self._ray.shutdown()

    def run(self, tasks: Sequence[Task], progress: Progress = no_progress) -> Iterator[tuple[int, Any]]:
        """As `tasks.Engine` says."""
        self._connect()
        largest = max(tasks, key=lambda task: task.memory_bytes, default=None)
        room = Room(self._ray, lambda text: print(text, file=sys.stderr))
        remote = self._ray.remote(run_task)
        waiting = list(range(len(tasks)))[::-1]
        running: dict[Any, int] = {}
        try:
            while largest is not None and (waiting or running):
                with signals_after():
                    self._look(room, largest)
                    while waiting and len(running) < self._window:
                        index = waiting.pop()
                        running[self._submit(remote, tasks[index])] = index
                    ready, _ = self._ray.wait(list(running), num_returns=1, timeout=_LOOK_S)
                    done = [(running.pop(one), self._got(one)) for one in ready]
                for index, got in done:
                    yield index, self._result(got, tasks[index], progress)
        finally:
            with signals_after():
                for reference in running:
                    self._ray.cancel(reference, force=True)

    def _connect(self) -> None:
        if self._ray is not None:
            return
        for name, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError:
            raise DataselectError("--engine ray: ray is missing; pip install 'dataselect[ray]'") from None
        if not ray.is_initialized():
            self._init(ray)
            self._started = True
        self._ray = ray
        if self._limit is None:
            self.n_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        shipped = Shipped(self._job, node_versions(), uuid.uuid4().hex)
        check_nodes(ray, shipped, self._shared)
        self._shipped = ray.put(shipped)

    def _init(self, ray: Any) -> None:
        if self._address is not None:
            _check_reachable(self._address)
        try:
            with signals_after():
                ray.init(address=self._address, **_QUIETLY)
        except Exception as error:  # noqa: BLE001 - RuntimeError, ConnectionError, AssertionError, ...
            where = self._address or "this machine"
            raise DataselectError(
                f"--engine ray: no cluster at {where}: {' '.join(str(error).split())}"
            ) from None

    def _look(self, room: Room, largest: Task) -> None:
        """How many tasks to submit (a cluster may grow), and whether a node can hold the largest."""
        if time.monotonic() - self._looked < _LOOK_S and self._window:
            return
        self._looked = time.monotonic()
        room.check(largest)
        cores = int(self._ray.cluster_resources().get("CPU", 1))
        self._window = self._limit or _IN_FLIGHT * max(1, cores)

    def _submit(self, remote: Any, task: Task) -> Any:
        options = {"num_cpus": 1, "memory": task.memory_bytes, "max_retries": TRIES - 1, "name": task.name}
        return remote.options(**options).remote(self._shipped, task)

    def _got(self, reference: Any) -> Any:
        """What `run_task` returned, or the error of Ray's."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return error

    def _result(self, got: Any, task: Task, progress: Progress) -> Any:
        errors = self._ray.exceptions
        if isinstance(got, errors.OutOfMemoryError):
            raise _out_of_memory(task, str(got))
        if isinstance(got, (errors.WorkerCrashedError, errors.NodeDiedError)):
            raise died(task, str(got).strip().splitlines()[0])
        if isinstance(got, errors.RayError):
            raise DataselectError(f"{task.name}: {str(got).strip().splitlines()[-1]}")
        result, n_docs, n_bytes = got
        progress(n_docs, n_bytes)
        if isinstance(result, DataselectError):
            raise result
        return result
