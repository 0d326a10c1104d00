"""Kill a run again and again with SIGKILL, resume it, and compare with a run that nobody disturbed.

    python scripts/kill_test.py RECIPE --kills 20 --set input.piece_bytes=65536

A round kills at a random moment: when the run has made a random number of files more (the same numbers for
the same --seed), and a random delay after it. Two rounds of three kill the coordinator (its fork server and
workers must go by themselves), the third kills a random worker, which the run must survive. When no kill is
left the run goes to its end. Then the digests are compared; the exit code is 0 or 1. Output and work folders
are made in --folder and are left there. Linux only: processes are found in /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "DATASELECT_KILL_TEST"


@dataclass
class Round:
    """One killed run."""

    victim: str
    after_s: float
    n_files: int
    """Files in the work and output folders at the time."""
    end: str


class Runs:
    """Runs of one recipe into one pair of folders."""

    def __init__(self, recipe: Path, folder: Path, sets: list[str], workers: int) -> None:
        self.work, self.output = folder / "work", folder / "out"
        own = [f"work={self.work}", f"output.folder={self.output}"]
        options = [option for value in [*own, *sets] for option in ("--set", value)]
        self._command = [
            sys.executable,
            "-m",
            "dataselect",
            "run",
            str(recipe),
            "--json",
            "--quiet",
            *options,
        ]
        self._command += ["--workers", str(workers)]
        self.mark = uuid.uuid4().hex

    def start(self) -> subprocess.Popen[str]:
        """A run of its own, marked in its environment."""
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, MARK: self.mark}
        return subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )

    def finish(self) -> dict[str, Any]:
        """Run to the end; the report."""
        process = self.start()
        out, err = process.communicate()
        if process.returncode:
            sys.exit(f"the run failed with exit code {process.returncode}:\n{err}")
        return dict(json.loads(out))

    def processes(self) -> dict[int, int]:
        """Process id -> parent's, of everything that belongs to a run."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError, IndexError):
                if f"{MARK}={self.mark}".encode() in path.read_bytes():
                    stat = (path.parent / "stat").read_text().rpartition(")")[2].split()
                    if stat[0] != "Z":
                        found[int(path.parent.name)] = int(stat[1])
        return found

    def workers(self, coordinator: int) -> list[int]:
        """Grandchildren of the coordinator: children of its fork server."""
        parents = self.processes()
        return sorted(pid for pid, parent in parents.items() if parents.get(parent) == coordinator)

    def wait_for_none(self, seconds: float = 30.0) -> None:
        """Exit where processes of a killed run stay."""
        end = time.monotonic() + seconds
        while left := self.processes():
            if time.monotonic() > end:
                sys.exit(f"these processes stayed after the kill: {sorted(left)}")
            time.sleep(0.02)

    def n_files(self) -> int:
        """Files in the work and output folders."""
        return sum(len(files) for folder in (self.work, self.output) for _, _, files in os.walk(folder))


def kill(process_id: int) -> None:
    """SIGKILL; a process that ended meanwhile is all right."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)


def one_round(runs: Runs, draws: random.Random, kill_all: bool, n_files_more: int) -> Round:
    """Start, wait for so many files more, kill, and see what happens."""
    wanted = runs.n_files() + n_files_more
    delay_s = draws.uniform(0.0, 0.2 if n_files_more else 2.0)
    process = runs.start()
    started = time.monotonic()
    while runs.n_files() < wanted and process.poll() is None:
        time.sleep(0.005)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay_s)
    after_s, n_files, workers = time.monotonic() - started, runs.n_files(), runs.workers(process.pid)
    if kill_all or not workers:
        victim = "coordinator"
        kill(process.pid)
    else:
        victim = "worker"
        kill(draws.choice(workers))
    _, err = process.communicate()
    runs.wait_for_none()
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"a killed run ended with exit code {process.returncode}:\n{err}")
    return Round(victim, after_s, n_files, "done" if process.returncode == 0 else "killed")


def files_left(folder: Path) -> list[Path]:
    """Temporary files under the folder."""
    return list(folder.rglob(".tmp-*"))


def forget(runs: Runs, reference: dict[str, Any]) -> None:
    """After a run that reached its end: begin anew, so that there is something to kill."""
    if (runs.output / "manifest.json").exists():
        digest = json.loads((runs.output / "manifest.json").read_text("utf-8"))["digest"]
        if digest != reference["digest"]:
            sys.exit(f"DIFFERENT: digest {digest}, undisturbed {reference['digest']}")
        shutil.rmtree(runs.work)
        shutil.rmtree(runs.output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(".kill-test"))
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="a.b=value")
    args = parser.parse_args()
    folder = args.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)

    undisturbed = Runs(args.recipe, folder / "undisturbed", args.sets, args.workers)
    reference = undisturbed.finish()
    n_files = undisturbed.n_files()
    print(
        f"undisturbed: {reference['tasks']['run']} tasks, {n_files} files, digest {reference['digest']}",
        flush=True,
    )

    runs = Runs(args.recipe, folder / "killed", args.sets, args.workers)
    draws = random.Random(args.seed)
    print(f"{'kill':>4}  {'of':11}  {'after s':>7}  {'files':>5}  the run", flush=True)
    n_done = 0
    for number in range(args.kills):
        n_files_more = draws.randrange(max(1, n_files - runs.n_files()))
        one = one_round(runs, draws, kill_all=number % 3 != 2, n_files_more=n_files_more)
        print(f"{number + 1:4}  {one.victim:11}  {one.after_s:7.2f}  {one.n_files:5}  {one.end}", flush=True)
        n_done += one.end == "done"
        forget(runs, reference)
    report = runs.finish()
    same = report["digest"] == reference["digest"] and report["row_digest"] == reference["row_digest"]
    left = files_left(folder)
    tasks = report["tasks"]
    print(f"last run: {tasks['run']} tasks run, {tasks['reused']} reused")
    print(f"{n_done} of the {args.kills} killed runs reached their end all the same")
    print("the same digest" if same else f"DIFFERENT: digest {report['digest']}", end=", ")
    print(f"{len(left)} temporary files left")
    sys.exit(not same or bool(left))


if __name__ == "__main__":
    main()
