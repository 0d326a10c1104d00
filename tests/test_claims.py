"""Claims: each task is run by one participant, whoever is gone is followed by another, on any store."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from dataselect.core.errors import DataselectError
from dataselect.engine import shared
from dataselect.engine.nodes import node_versions
from dataselect.engine.shared import SharedEngine
from dataselect.engine.tasks import Task
from dataselect.io import claims
from dataselect.io.store import store_at


@dataclass(frozen=True)
class Call:
    number: int


TASKS = [Task(f"task {i}", "read:read_piece", Call(i)) for i in range(12)]
RESULTS = {i: {"square": i * i} for i in range(12)}


class Inner:
    """LocalEngine's interface, in this thread; `ran` has every task that was run by anyone."""

    ran: list[int]
    before = staticmethod(lambda number: None)

    def __init__(self, job, n_workers):
        pass

    def __exit__(self, *exc):
        pass

    def run(self, tasks, progress):
        for i, task in enumerate(tasks):
            self.before(task.call.number)
            self.ran.append(task.call.number)
            yield i, RESULTS[task.call.number]


@pytest.fixture
def inner(monkeypatch):
    made = type("MadeInner", (Inner,), {"ran": []})
    monkeypatch.setattr(shared, "LocalEngine", made)
    for name in ("_PAUSE_S", "_FAR_PAUSE_S"):
        monkeypatch.setattr(shared, name, (0.01, 0.05))
    return made


@pytest.fixture(params=["local", "s3"])
def work(request, tmp_path):
    if request.param == "s3":
        return store_at(request.getfixturevalue("s3").url + "/work")
    return store_at(tmp_path)


def engine(work):
    return SharedEngine(SimpleNamespace(work=work.url), 1, "run-1")


def run_all(work):
    with engine(work) as made:
        return dict(made.run(TASKS))


def put(work, name, content):
    with work.commit(f"claims/run-1/{name}") as file:
        file.write(content)


def claim_all(work, owner, renewed):
    """Somebody's claims of all tasks, and heartbeat."""
    beat(work, owner, renewed)
    for task in TASKS:
        put(work, f"{shared._name(task)}.0", owner.encode())


def beat(work, owner, renewed):
    put(work, f"alive/{owner}", json.dumps({"owner": owner, "renewed": renewed}).encode())


def names(work):
    return [entry.name for entry in work.list("claims")]


def test_participants_share_the_tasks_and_all_get_all_results(work, inner):
    all_began, begun = threading.Barrier(3), threading.local()

    def wait_for_all(number):
        if not hasattr(begun, "yes"):
            begun.yes = all_began.wait(30)

    inner.before = staticmethod(wait_for_all)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(run_all, work) for _ in range(3)]
        assert [future.result() for future in futures] == [RESULTS] * 3
    assert sorted(inner.ran) == list(RESULTS)
    assert names(work) == []


def test_who_fails_gives_its_tasks_back_at_once(work, inner):
    def fail(number):
        raise ZeroDivisionError

    inner.before = staticmethod(fail)
    with pytest.raises(ZeroDivisionError):
        run_all(work)
    assert len(names(work)) == 1  # the claim, but no heartbeat
    inner.before = staticmethod(lambda number: None)
    assert run_all(work) == RESULTS
    assert names(work) == []


def test_claims_of_a_run_that_died_yesterday_do_not_cost_a_minute(work, inner):
    claim_all(work, "dead", time.time() - 86400)
    started = time.monotonic()
    assert run_all(work) == RESULTS
    assert time.monotonic() - started < claims._EXPIRE_S / 2


def test_who_is_silent_for_long_by_our_clock_is_gone_whatever_its_own_says(work, inner, monkeypatch):
    monkeypatch.setattr(claims, "_EXPIRE_S", 0.4)
    claim_all(work, "frozen", time.time() + 3600)
    started = time.monotonic()
    assert run_all(work) == RESULTS
    assert time.monotonic() - started > 0.4
    assert f"claims/run-1/{shared._name(TASKS[0])}.1" in names(work)  # kept for one that goes on
    run_all(work)
    assert len(inner.ran) == len(TASKS)


@pytest.mark.parametrize(
    "began, ago, versions, is_refused",
    [
        (0.0, 0, {"numba": "0"}, True),
        (9e9, 0, {"numba": "0"}, False),  # the other is refused, then
        (0.0, 86400, {"numba": "0"}, False),
        (0.0, 0, node_versions(), False),
    ],
)
def test_who_has_other_versions_than_one_who_came_before_does_not_take_part(
    work, inner, began, ago, versions, is_refused
):
    record = {"owner": "x", "host": "h", "renewed": time.time() - ago, "began": began, "versions": versions}
    put(work, "alive/x", json.dumps(record).encode())
    if is_refused:
        with pytest.raises(DataselectError, match=r"^this worker has .*numba .*, but one on h .* numba 0"):
            run_all(work)
        assert names(work) == ["claims/run-1/alive/x"]
    else:
        assert run_all(work) == RESULTS


def test_the_claims_of_the_living_are_left_alone(work, inner, monkeypatch):
    monkeypatch.setattr(claims, "_EXPIRE_S", 0.5)
    claim_all(work, "living", time.time() + 3600)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_all, work)
        for k in range(8):
            time.sleep(0.1)
            beat(work, "living", time.time() + 3601 + k)
        for task in TASKS:
            put(work, f"{shared._name(task)}.done", json.dumps(RESULTS[task.call.number]).encode())
        assert waiting.result() == RESULTS
    assert inner.ran == []


def test_a_claim_whose_confirmation_was_lost_is_taken_up_again(work, inner, monkeypatch):
    made = engine(work)
    put_new = made._claims._store.put_new
    monkeypatch.setattr(
        made._claims._store, "put_new", lambda name, data: put_new(name, data) and not name.endswith(".0")
    )
    with made:
        assert dict(made.run(TASKS)) == RESULTS
    assert sorted(inner.ran) == list(RESULTS)


def test_results_that_are_not_to_be_trusted_are_forgotten_with_their_claims(work, inner):
    with engine(work) as made:
        assert dict(made.run(TASKS)) == RESULTS
        made.forget()
        assert [name for name in names(work) if "/alive/" not in name] == []
        assert dict(made.run(TASKS)) == RESULTS
    assert len(inner.ran) == 2 * len(TASKS)


def test_what_runs_that_died_left_is_removed_and_what_others_do_is_not(work, inner):
    claim_all(work, "dead", 1.0)
    with SharedEngine(SimpleNamespace(work=work.url), 1, "run-2") as made:
        dict(made.run(TASKS[:1]))
        with engine(work) as other:
            assert dict(other.run(TASKS[:2])) == {0: RESULTS[0], 1: RESULTS[1]}
            assert len({name.split("/")[1] for name in names(work)}) == 2
    assert names(work) == []


def test_a_task_costs_two_requests_and_two_deletions_in_the_end(s3, inner):
    work = store_at(s3.url + "/work")
    s3.log()
    run_all(work)
    what = [kind for kind, path in s3.log() if "/claims/" in path or kind == "LIST"]
    assert what.count("PUT") == 2 * len(TASKS) + 1
    assert what.count("GET") == 0
    assert what.count("LIST") + what.count("HEAD") <= 5


def test_nothing_is_claimed_where_there_is_nothing_to_do(work, inner):
    with engine(work) as made:
        assert list(made.run([])) == []
    assert names(work) == []
