"""The contract of every engine: the same bytes, errors in a sentence, a dead worker costs its task only."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from types import SimpleNamespace

import corpora
import pytest

import dataselect
from dataselect import runner
from dataselect.core.errors import DataselectError, RecipeError
from dataselect.io import claims as claims_module
from dataselect.io import object_lock
from dataselect.io.claims import Claims
from dataselect.io.store import LocalStore, store_at
from dataselect.publish import live_shards, locked, read_manifest

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
    recipe = corpora.recipe_with(project, "HasWord")
    code, _, err = corpora.cli("run", recipe, "--engine", "spark")
    assert (code, err) == (2, "dataselect: --engine: expected local or ray, got spark\n")
    _, _, err = corpora.cli("run", recipe, "--engine", "shared")
    assert err.endswith("got shared; machines without Ray join a run by `dataselect worker RECIPE`\n")
    with pytest.raises(RecipeError, match=r"^engine: expected one of local, ray, shared, got spark$"):
        dataselect.run(recipe, engine="spark")


# Workers that join ---------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.slow)])
def joined(request, project):
    """A recipe whose first read waits for leave; its shards, work and output on a disk or an object store."""
    if request.param == "disk":
        base = project
    else:
        base = request.getfixturevalue("s3").url
        for path in (project / "in").rglob("*.*"):
            with store_at(base).commit(path.relative_to(project).as_posix()) as file:
                file.write(path.read_bytes())
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    text = recipe.read_text().replace("- in/", f"- {base}/in/").replace("folder: out", f"folder: {base}/out")
    recipe.write_text(text.replace("work: work", f"work: {base}/work"))
    return SimpleNamespace(recipe=recipe, work=store_at(f"{base}/work"), output=store_at(f"{base}/out"))


def start_worker(joined, patch="", **env):
    """`dataselect worker`, whose first lines may be a patch."""
    code = f"{patch}\nfrom dataselect.cli import main\nmain()"
    args = ["worker", joined.recipe, "--workers", 1, "--quiet"]
    return corpora.start(*args, program=("-c", code), **env)


def claims(joined, number=0):
    return {entry.name for entry in joined.work.list("claims") if entry.name.endswith(f".{number}")}


def leave(project):
    (project / "go").touch()


def check_finished(process, said):
    out, err = corpora.finish(process, 120)
    assert (process.returncode, err) == (0, "")
    assert said in out
    return out


def test_workers_that_join_share_the_tasks_and_one_publishes(project, joined):
    with start_worker(joined) as first, start_worker(joined) as second:
        corpora.wait_until(lambda: len(claims(joined)) == 2, 120)
        leave(project)
        with locked(joined.output):  # so that both want to publish at once
            corpora.wait_until(lambda: not list(joined.work.list("claims")), 120)
        outs = [corpora.finish(process, 120)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    assert sum("published generation" in out for out in outs) == 1
    assert sum("is up to date" in out for out in outs) == 1
    assert undisturbed_digest(joined.recipe) in "".join(outs)
    assert dataselect.run(joined.recipe, engine="shared")["up_to_date"]


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_costs_its_tasks_only(project, joined, monkeypatch, how):
    monkeypatch.setattr(claims_module, "_EXPIRE_S", 2.0 if how == signal.SIGKILL else 1e9)
    with start_worker(joined) as first:
        corpora.wait_until(lambda: claims(joined), 60)
        first.send_signal(how)
    leave(project)
    report = dataselect.run(joined.recipe, workers=1, engine="shared")
    assert report["digest"] == undisturbed_digest(joined.recipe)
    assert not report["up_to_date"]


@pytest.mark.slow
def test_a_worker_that_was_frozen_for_long_goes_on_and_finds_all_done(project, joined, monkeypatch):
    monkeypatch.setattr(claims_module, "_EXPIRE_S", 2.0)
    with start_worker(joined) as first:
        corpora.wait_until(lambda: claims(joined), 60)
        first.send_signal(signal.SIGSTOP)
        leave(project)
        report = dataselect.run(joined.recipe, workers=1, engine="shared")
        assert not report["up_to_date"]
        assert len(claims(joined, 1)) == 1
        first.send_signal(signal.SIGCONT)
        check_finished(first, "is up to date")
    assert report["digest"] == undisturbed_digest(joined.recipe)


STOPS_BEFORE_ITS_SWITCH = """
import os, signal
from dataselect import publish
put = publish.Publisher._put
def stop_before_the_switch(self, name, value):
    if name == "manifest.json":
        os.kill(os.getpid(), signal.SIGSTOP)
    put(self, name, value)
publish.Publisher._put = stop_before_the_switch
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGCONT])
def test_a_worker_that_falls_over_while_it_publishes_is_followed_by_another(
    project, joined, monkeypatch, end
):
    if end == signal.SIGCONT and isinstance(joined.output, LocalStore):
        pytest.skip("on a disk whoever is frozen keeps its lock")
    leave(project)
    monkeypatch.setattr(object_lock, "_EXPIRE_S", 2.0)
    with start_worker(joined, STOPS_BEFORE_ITS_SWITCH) as first:
        corpora.wait_until(lambda: is_stopped(first), 60)
        if end == signal.SIGKILL:
            first.send_signal(end)
        report = dataselect.run(joined.recipe, workers=1, engine="shared")
        if end == signal.SIGCONT:
            first.send_signal(end)
            check_finished(first, "published generation")
    assert report["digest"] == undisturbed_digest(joined.recipe)
    assert dataselect.run(joined.recipe, workers=1)["up_to_date"]


@pytest.mark.slow
def test_a_worker_that_dies_after_its_switch_leaves_the_rest_to_another(project):
    recipe, switch = corpora.recipe_with(project, "HasWord"), "    put(self, name, value)\n"
    stops_after = STOPS_BEFORE_ITS_SWITCH.replace(switch, "").replace("    if name", f"{switch}    if name")
    with start_worker(SimpleNamespace(recipe=recipe), stops_after) as first, ThreadPoolExecutor(1) as pool:
        corpora.wait_until(lambda: is_stopped(first), 60)
        second = pool.submit(dataselect.run, recipe, workers=1, engine="shared")
        with pytest.raises(FutureTimeout):
            second.result(4)
        first.kill()
        report = second.result(60)
    assert (project / "out/current").resolve().name == report["generation"]


def is_stopped(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_files_that_are_gone_although_a_worker_said_it_wrote_them_are_written_again(project, monkeypatch):
    recipe = corpora.recipe_with(project, "HasWord")
    monkeypatch.setattr(Claims, "close", lambda self, *, finished: self._heartbeat.stop())  # as if killed
    first = dataselect.run(recipe, workers=1, engine="shared")
    shutil.rmtree(project / "out")
    monkeypatch.undo()
    again = dataselect.run(recipe, workers=1, engine="shared")
    assert again["digest"] == first["digest"]
    assert all((project / "out" / name).exists() for name in live_shards(store_at(project / "out")))


def test_what_another_run_published_meanwhile_is_not_replaced(project, monkeypatch):
    recipe, end = corpora.recipe_with(project, "HasWord"), runner._end_together

    def end_late(*args):
        monkeypatch.undo()
        dataselect.run(recipe, workers=1, sets=["stages.0.word=a"])
        return end(*args)

    monkeypatch.setattr(runner, "_end_together", end_late)
    with pytest.raises(DataselectError, match=r"out: another run published here meanwhile; run it again$"):
        dataselect.run(recipe, workers=1, engine="shared")
    assert read_manifest(store_at(project / "out"))["recipe"]["stages"][0]["word"] == "a"
