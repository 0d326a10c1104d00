"""The contract of every engine: the same bytes, errors in a sentence, a dead worker costs its task only."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from pathlib import Path

import corpora
import pytest

import dataselect
from dataselect.core.errors import DataselectError

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["local", "shared", "ray"])
def options(request):
    """Arguments of `dataselect.run` that choose an engine."""
    if request.param == "ray":
        return {"engine": "ray", "address": request.getfixturevalue("cluster").address}
    return {"engine": request.param, "workers": 2}


@pytest.fixture
def project(tmp_path):
    corpora.make_corpus(tmp_path / "in", 12)
    return tmp_path


def undisturbed_digest(recipe):
    report = dataselect.run(recipe, workers=1, sets=["output.folder=other", "work=other-work"])
    return report["digest"]


def test_the_bytes_are_the_same_on_every_engine_and_a_second_run_does_nothing(project, options):
    recipe = corpora.recipe_with(project, "HasWord")
    report = dataselect.run(recipe, **options)
    assert report["digest"] == undisturbed_digest(recipe)
    assert report["workers"] == 2
    again = dataselect.run(recipe, **options)
    assert again["up_to_date"]
    assert again["tasks"]["run"] == 0


def test_an_error_of_a_stage_stops_the_run_with_its_sentence(project, options):
    with pytest.raises(DataselectError, match=r"^the moon is in the wrong quarter; wait a week$"):
        dataselect.run(corpora.recipe_with(project, "Refusing"), **options)


def test_an_unforeseen_error_names_its_task(project, options):
    with pytest.raises(DataselectError, match=r"(?s)^read 1 .*IndexError.*my_stages.py"):
        dataselect.run(corpora.recipe_with(project, "Broken"), **options)


def test_a_task_whose_worker_dies_is_tried_again(project, options):
    recipe = corpora.recipe_with(project, "Deadly", log=str(project / "deaths"), times=2)
    report = dataselect.run(recipe, **options)
    assert (project / "deaths").read_text() == "xx"
    assert report["digest"] == undisturbed_digest(recipe)


@pytest.mark.slow
def test_a_task_whose_worker_always_dies_fails_the_run_by_name(project, options):
    recipe = corpora.recipe_with(project, "Deadly", log=str(project / "deaths"), times=10**6)
    with pytest.raises(DataselectError, match=r"^read 1 .*: its worker process died 3 times"):
        dataselect.run(recipe, **options)


def test_a_node_that_is_lost_costs_its_tasks_only(project, cluster):
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    options = {"engine": "ray", "address": cluster.address}
    reports = []
    thread = threading.Thread(target=lambda: reports.append(dataselect.run(recipe, **options)))
    thread.start()
    corpora.wait_until((project / "began").exists, 60)
    cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)
    (project / "go").touch()
    thread.join(120)
    cluster.nodes.append(cluster.add_node(num_cpus=1))
    assert reports
    assert reports[0]["digest"] == undisturbed_digest(recipe)


def test_ray_that_is_missing_or_out_of_reach_is_one_sentence(project):
    recipe = corpora.recipe_with(project, "HasWord")
    code, _, err = corpora.cli("run", recipe, "--quiet", "--engine", "ray", "--address", "127.0.0.1:1")
    assert code == 1
    assert err.startswith(
        "dataselect: --engine ray: "
        if importlib.util.find_spec("ray") is None
        else "dataselect: --address 127"
    )
    assert "Traceback" not in err


def test_an_engine_that_does_not_exist_is_a_mistake(project):
    code, _, err = corpora.cli("run", corpora.recipe_with(project, "HasWord"), "--engine", "spark")
    assert (code, err) == (2, "dataselect: engine: expected one of local, ray, shared, got spark\n")


def worker(recipe, **env):
    return corpora.start("worker", recipe, "--workers", 1, "--quiet", **env)


def test_workers_that_join_share_the_tasks(project):
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    with worker(recipe) as first, worker(recipe) as second:
        corpora.wait_until(lambda: len(list((project / "work/claims").rglob("*.claim"))) == 2)
        (project / "go").touch()
        outs = [corpora.finish(process)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    assert sum("published generation" in out for out in outs) == 1
    assert sum("is up to date" in out for out in outs) == 1
    assert undisturbed_digest(recipe) in "".join(outs)
    assert not list((project / "work/claims").rglob("*.claim"))


def test_a_claim_of_a_worker_that_was_killed_expires(project, monkeypatch):
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    with worker(recipe) as first:
        claims = corpora.wait_until(lambda: list((project / "work/claims").rglob("*.claim")))
        first.send_signal(signal.SIGKILL)
    (project / "go").touch()
    for claim in claims:
        os.utime(claim, (0, 0))
    report = dataselect.run(recipe, workers=1, engine="shared")
    assert report["digest"] == undisturbed_digest(recipe)


def test_a_live_claim_is_left_alone(project):
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    claims = lambda: set((project / "work/claims").rglob("*.claim"))  # noqa: E731
    with worker(recipe) as first:
        firsts = corpora.wait_until(claims)
        with worker(recipe) as second:
            corpora.wait_until(lambda: len(claims()) == 2)
            assert firsts < claims()
            (project / "go").touch()
            for process in (first, second):
                corpora.finish(process)
    assert first.returncode == second.returncode == 0
