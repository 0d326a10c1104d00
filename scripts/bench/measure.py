"""One command: CPU seconds and memory of its whole process tree, on the cores it is given. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Nothing large is imported: a child's peak memory counts from what its parent had when it began.

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OMP_THREAD_LIMIT",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "ARROW_IO_THREADS",
        "RAYON_NUM_THREADS",
        "POLARS_MAX_THREADS",
        "TOKIO_WORKER_THREADS",
    ),
    "1",
)
"""Environment of every measured command. Pools that size themselves by the CPUs see one in the affinity."""


@dataclass(frozen=True)
class Usage:
    """What a command and all processes it left took."""

    cpu_s: float
    wall_s: float
    max_rss_bytes: int
    """Of the largest process."""


class CommandFailed(Exception):
    """A command ended with an exit code or ran out of time; the message has the end of its stderr."""


class _OutOfTime(Exception):
    pass


def become_subreaper() -> None:
    """Have orphans of the commands as our own children: a fork server outlives its run for a moment."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@contextlib.contextmanager
def pinned(cpus: set[int]) -> Iterator[None]:
    """Children started within run on these CPUs only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(
    command: list[str],
    cpus: set[int],
    stdout: Path,
    stderr: Path,
    env: Mapping[str, str],
    timeout_s: float = 3600,
) -> Usage:
    """Run a command to the end of its whole process tree, in a process group of its own.

    The caller is the subreaper and has no other children. CommandFailed where the exit code is not 0 or the
    time is up; the group is ended then, and also where this is interrupted.
    """
    outputs = [
        (os.POSIX_SPAWN_OPEN, fd, str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for fd, path in ((1, stdout), (2, stderr))
    ]
    started = time.perf_counter()
    with pinned(cpus):
        main = os.posix_spawn(command[0], command, env, file_actions=outputs, setpgroup=0)
    cpu_s, wall_s, max_rss, code = 0.0, 0.0, 0, None
    try:
        with _time_limit(timeout_s):
            while True:
                pid, status, used = os.wait4(-1, 0)
                cpu_s += used.ru_utime + used.ru_stime
                max_rss = max(max_rss, used.ru_maxrss)
                if pid == main:
                    wall_s, code = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
    except ChildProcessError:  # no child is left
        pass
    except _OutOfTime:
        _end_group(main)
        raise CommandFailed(f"not done after {timeout_s:.0f} s") from None
    except BaseException:
        _end_group(main)
        raise
    if code:
        raise CommandFailed(f"exit code {code}\n{stderr.read_text(errors='replace')[-2000:]}")
    return Usage(cpu_s, wall_s, max_rss * 1024)


def _end_group(group: int) -> None:
    """SIGTERM, and SIGKILL for what is left after five seconds."""
    for number, wait_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 1.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        if _all_collected(wait_s):
            return


def _all_collected(wait_s: float) -> bool:
    """Whether no child is left within the time."""
    end = time.monotonic() + wait_s
    try:
        while time.monotonic() < end:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
    except ChildProcessError:
        return True
    return False
