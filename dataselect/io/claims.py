"""Who runs which task of a run that many join, kept on a store that all of them share.

claims/<run>/alive/<owner>      a participant's heartbeat
claims/<run>/<folder>/<key>.0   a claim: one alone can make it (`Store.put_new`); holds its owner's name
claims/<run>/<folder>/<key>.1   made by another when the owner of the one before was gone; and so on
claims/<run>/<folder>/<key>.done  the task's result

Nothing is ever taken away while a run goes on, so a claim has no race but that for its number. Claims save
work and decide nothing: tasks are pure and commit whole, so two that run the same one do no harm.

Gone is a participant without a heartbeat (it left), or with one that has not changed for a minute by the
clock of who waits for it. Only of one that is seen for the first time is the age told by the clocks of both
hosts, so that the claims of a run that died yesterday do not cost a minute.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataselect.core.errors import DataselectError
from dataselect.io.heartbeat import Heartbeat, new_owner, read_record
from dataselect.io.store import LocalStore, Store, each, is_far

CLAIMS = "claims"
_ALIVE = "alive"
_DONE = "done"
_RENEW_S = 10.0
_EXPIRE_S = 60.0
_WATCH_S = 20.0
"""Between two looks at one heartbeat."""
_LEFTOVER_S = 3600.0
"""Claims of another run are removed when none of its heartbeats is younger, by the clocks of both."""


@dataclass
class Board:
    """What one listing says of the tasks of some folders."""

    done: set[str] = field(default_factory=set)
    claims: dict[str, int] = field(default_factory=dict)
    """Task -> number of its latest claim."""


class Claims:
    """One participant's view of a run's claims. Tasks are named 'folder/key'."""

    def __init__(self, store: Store, run: str, versions: Mapping[str, str] | None = None) -> None:
        """versions: what the results of all participants depend on."""
        self._store, self._name = store, f"{CLAIMS}/{run}"
        self._versions = dict(versions or {})
        self._far = is_far(store)
        self._heartbeat: Heartbeat | None = None
        self._watch = _Watch(store, f"{self._name}/{_ALIVE}")
        self._owners: dict[str, str] = {}
        self._mine: set[str] = set()

    @property
    def owner(self) -> str:
        """Name of this participant."""
        return self._heartbeat.owner if self._heartbeat else ""

    def open(self) -> None:
        """Begin to live; remove what runs that died left.

        DataselectError where one who came before has other versions: bytes would depend on who ran what.
        """
        if self._heartbeat is not None:
            return
        owner = new_owner()
        began = time.time()
        about = {"began": began, "versions": self._versions}
        self._heartbeat = Heartbeat(self._store, f"{self._name}/{_ALIVE}/{owner}", owner, about)
        self._heartbeat.renew()
        self._heartbeat.start(_RENEW_S)
        runs: dict[str, list[str]] = {}
        for entry in self._store.list(CLAIMS):
            runs.setdefault("/".join(entry.name.split("/")[:2]), []).append(entry.name)
        self._check_versions(began, runs.pop(self._name, []))
        self._remove_leftovers(runs)

    def _check_versions(self, began: float, names: Sequence[str]) -> None:
        folder = f"{self._name}/{_ALIVE}/"
        for other in self._records(n for n in names if n.startswith(folder) and n != folder + self.owner):
            theirs = other.get("versions", self._versions)
            is_first = (other.get("began", 0.0), other["owner"]) < (began, self.owner)
            if theirs == self._versions or not is_first or time.time() - other["renewed"] > _EXPIRE_S:
                continue
            differ = [name for name in self._versions if theirs.get(name) != self._versions[name]]
            here, there = (
                ", ".join(f"{name} {of.get(name)}" for name in differ) for of in (self._versions, theirs)
            )
            raise DataselectError(
                f"this worker has {here}, but one on {other['host']} that came before has {there}; "
                "install the same everywhere"
            )

    def close(self, *, finished: bool) -> None:
        """Leave, which gives back what is claimed. The last one to leave a finished run clears up."""
        if self._heartbeat is None:
            return
        self._heartbeat.stop()
        with contextlib.suppress(DataselectError):  # claims expire by themselves
            self._store.delete(f"{self._name}/{_ALIVE}/{self.owner}")
            names = [entry.name for entry in self._store.list(self._name)] if finished else []
            if not any(name.startswith(f"{self._name}/{_ALIVE}/") for name in names):
                self._delete(names)

    def forget(self) -> None:
        """Claims and results are not to be trusted: an artifact that one of them names is damaged."""
        names = [entry.name for entry in self._store.list(self._name)]
        self._delete([name for name in names if not name.startswith(f"{self._name}/{_ALIVE}/")])
        self._owners.clear()
        self._mine.clear()

    def look(self, folders: Collection[str]) -> Board:
        """What is claimed and what is done, by one listing a folder."""
        board = Board()
        for folder in folders:
            for entry in self._store.list(f"{self._name}/{folder}"):
                task, _, kind = entry.name.removeprefix(f"{self._name}/").rpartition(".")
                if kind == _DONE:
                    board.done.add(task)
                elif kind.isdigit():
                    board.claims[task] = max(int(kind), board.claims.get(task, 0))
        return board

    def take(self, task: str, number: int) -> bool:
        """Make claim `number` of a task; whether it is ours now."""
        name = f"{task}.{number}"
        if not self._store.put_new(f"{self._name}/{name}", self.owner.encode()):
            return False
        self._mine.add(name)
        return True

    def abandoned(self, claims: Mapping[str, int]) -> list[str]:
        """Those of the tasks whose latest claim is of one who is gone."""
        names = [f"{task}.{number}" for task, number in claims.items()]
        new = [name for name in names if name not in self._owners]
        self._owners.update(zip(new, each(self._read_owner, new, far=self._far), strict=True))
        return [
            task
            for task, name in zip(claims, names, strict=True)
            if name not in self._mine and self._gone(name)
        ]

    def finish(self, task: str, result: Any) -> None:
        """Leave the result for the others."""
        with self._store.commit(f"{self._name}/{task}.{_DONE}") as file:
            file.write(json.dumps(result).encode())

    def results(self, tasks: Sequence[str]) -> list[Any]:
        """What others left for these tasks; None where it is gone again."""
        return each(self._result, tasks, far=self._far)

    def _result(self, task: str) -> Any:
        with contextlib.suppress(FileNotFoundError):
            return json.loads(self._store.read(f"{self._name}/{task}.{_DONE}"))
        return None

    def _read_owner(self, claim: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self._store.read(f"{self._name}/{claim}").decode(errors="replace")
        return ""

    def _gone(self, claim: str) -> bool:
        owner = self._owners[claim]
        # Ours although we know nothing of it: the answer to a request that made it was lost.
        return owner == self.owner or self._watch.gone(owner)

    def _remove_leftovers(self, runs: Mapping[str, Sequence[str]]) -> None:
        for run, names in runs.items():
            records = self._records(name for name in names if name.startswith(f"{run}/{_ALIVE}/"))
            if all(time.time() - record["renewed"] > _LEFTOVER_S for record in records):
                self._delete(names)

    def _records(self, beats: Iterable[str]) -> list[dict[str, Any]]:
        """Of the heartbeats that are still there."""
        found = each(lambda name: read_record(self._store, name), list(beats), far=self._far)
        return [record for record in found if record is not None]

    def _delete(self, names: Sequence[str]) -> None:
        each(self._store.delete, names, far=self._far)
        if isinstance(self._store, LocalStore):
            self._store.prune(CLAIMS)


@dataclass
class _Seen:
    renewed: float
    """As the heartbeat says, by its owner's clock."""
    since: float
    """When it was first seen so, by ours; monotonic."""
    looked: float


class _Watch:
    """Who of the others is gone, seen from here."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._seen: dict[str, _Seen] = {}

    def gone(self, owner: str) -> bool:
        seen = self._seen.get(owner)
        if seen is None or time.monotonic() - seen.looked > min(_WATCH_S, _EXPIRE_S / 3):
            seen = self._seen[owner] = self._look(owner, seen)
        return seen.looked - seen.since > _EXPIRE_S

    def _look(self, owner: str, seen: _Seen | None) -> _Seen:
        record = read_record(self._store, f"{self._folder}/{owner}") if owner else None
        now = time.monotonic()
        if record is None:
            return _Seen(0.0, float("-inf"), now)
        renewed = record["renewed"]
        if seen is None and time.time() - renewed > _EXPIRE_S:
            return _Seen(renewed, float("-inf"), now)
        return _Seen(renewed, now if seen is None or seen.renewed != renewed else seen.since, now)
