"""Workers that die, coordinators that are killed, signals: the run notices, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import corpora
import pytest

import dataselect
from dataselect.engine.interrupts import signals_after

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"
)


@pytest.fixture
def project(tmp_path):
    """Folder with small shards, each its own piece."""
    corpora.make_corpus(tmp_path / "in", 12)
    return tmp_path


def leftovers(project):
    return [str(path) for path in project.rglob(".tmp-*")]


def test_a_task_whose_worker_is_killed_is_tried_again(project, capfd):
    recipe = corpora.recipe_with(project, "Deadly", log=str(project / "deaths"), times=2)
    report = dataselect.run(recipe, workers=1)
    assert (project / "deaths").read_text() == "xx"
    assert capfd.readouterr().err.count("killed by signal SIGKILL); trying again") == 2
    undisturbed = dataselect.run(recipe, sets=["output.folder=other", "work=other-work"])
    assert report["digest"] == undisturbed["digest"]
    assert not leftovers(project)


def test_a_task_whose_worker_is_always_killed_fails_the_run_with_its_name(project):
    recipe = corpora.recipe_with(project, "Deadly", log=str(project / "deaths"), times=10**6)
    code, out, err = corpora.cli("run", recipe, "--workers", 1, "--quiet")
    assert (code, out) == (1, "")
    assert "read 1 a.jsonl" in err or "read 1 a-00000.jsonl" in err
    assert "died 3 times (killed by signal SIGKILL)" in err
    assert "Traceback" not in err
    assert not leftovers(project)


def test_an_error_of_a_stage_is_one_sentence(project):
    recipe = corpora.recipe_with(project, "Refusing")
    code, _, err = corpora.cli("run", recipe)
    assert (code, err) == (1, "dataselect: the moon is in the wrong quarter; wait a week\n")


def test_an_unforeseen_error_names_its_task_and_keeps_its_traceback(project):
    recipe = corpora.recipe_with(project, "Broken")
    code, _, err = corpora.cli("run", recipe)
    assert code == 1
    assert err.startswith("dataselect: read 1 ")
    assert "IndexError" in err
    assert "my_stages.py" in err


def test_workers_go_when_the_coordinator_is_killed(project):
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    marker = f"marker-{uuid.uuid4().hex}"
    with corpora.start("run", recipe, "--workers", 2, DATASELECT_TEST=marker) as process:
        corpora.wait_until((project / "began").exists)
        assert len(corpora.processes_with(marker)) >= 3
        process.kill()
    corpora.wait_until(lambda: not corpora.processes_with(marker))


@pytest.mark.parametrize(
    "number, code, word", [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "stopped")]
)
def test_a_signal_stops_cleanly_and_the_next_run_goes_on(project, number, code, word):
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    marker = f"marker-{uuid.uuid4().hex}"
    with corpora.start("run", recipe, "--workers", 2, DATASELECT_TEST=marker) as process:
        corpora.wait_until((project / "began").exists)
        process.send_signal(number)
        _, err = corpora.finish(process, 30)
    assert (process.returncode, err) == (code, f"dataselect: {word}; the same command goes on from here\n")
    corpora.wait_until(lambda: not corpora.processes_with(marker))
    assert not leftovers(project)
    assert not (project / "out" / "manifest.json").exists()
    (project / "go").touch()
    resumed = dataselect.run(recipe)
    fresh = dataselect.run(recipe, sets=["output.folder=other", "work=other-work"])
    assert resumed["digest"] == fresh["digest"]


def test_signals_that_came_while_ray_waited_are_handled_also_where_it_failed():
    came = []

    def fail():
        os.kill(os.getpid(), signal.SIGTERM)
        came.append("later")
        raise ZeroDivisionError

    before = signal.signal(signal.SIGTERM, lambda *_: came.append("handled"))
    try:
        with pytest.raises(ZeroDivisionError), signals_after():
            fail()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == ["later", "handled"]


def test_a_signal_to_the_whole_process_group_stops_cleanly_too(project):
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    marker = f"marker-{uuid.uuid4().hex}"
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-m", "dataselect", "run", str(recipe), "--quiet"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": root, "DATASELECT_TEST": marker},
    ) as process:
        corpora.wait_until((project / "began").exists)
        os.killpg(process.pid, signal.SIGINT)
        _, err = corpora.finish(process, 30)
    assert (process.returncode, err) == (130, "dataselect: stopped; the same command goes on from here\n")
    corpora.wait_until(lambda: not corpora.processes_with(marker))


def test_run_works_from_a_script_without_a_main_guard(project):
    recipe = corpora.write_recipe(project, [{"use": "exact_dedup"}])
    script = project / "script.py"
    run = f"dataselect.run({str(recipe)!r}, workers=2)"
    script.write_text(f"import dataselect\nprint({run}['rows']['in'])\n")
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("72\n", "")


def test_a_second_run_of_the_same_output_is_locked_out(project):
    recipe = corpora.recipe_with(project, "Waiting", flags=str(project))
    with corpora.start("run", recipe, "--quiet") as process:
        corpora.wait_until((project / "began").exists)
        code, out, err = corpora.cli("run", recipe)
        assert (code, out) == (4, "")
        assert "another run is writing" in err
        (project / "go").touch()
        corpora.finish(process, 60)
    assert process.returncode == 0


def test_results_go_to_stdout_and_everything_else_to_stderr(project):
    code, out, err = corpora.cli("run", corpora.recipe_with(project, "Chatty"), "--json", "--quiet")
    assert code == 0
    assert "chat" in err
    assert not err.replace("chat", "").strip()
    assert json.loads(out)["rows"]["in"] == 72
