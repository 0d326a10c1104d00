"""Killed runs go on where they were; scripts/kill_test.py does this at random moments and at length."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import corpora
import pytest

import dataselect
from dataselect.core.listener import Listener

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"
)


class StopAfter(Listener):
    """Interrupts the run when so many tasks are done."""

    def __init__(self, n_tasks):
        self._n_left = n_tasks

    def task_done(self, name, n_bytes, figures):
        self._n_left -= 1
        if not self._n_left:
            raise KeyboardInterrupt


def test_a_stopped_run_goes_on_after_any_task(tmp_path):
    recipe = corpora.make_project(tmp_path)
    whole = dataselect.run(recipe, sets=[f"work={tmp_path}/w", f"output.folder={tmp_path}/o"])
    n_tasks = whole["tasks"]["run"]
    for n_done in range(1, n_tasks, 6):
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            dataselect.run(recipe, listener=StopAfter(n_done), workers=1)
        report = dataselect.run(recipe)
        assert report["digest"] == whole["digest"]
        assert report["tasks"]["run"] <= n_tasks - n_done
        assert not list(tmp_path.rglob(".tmp-*"))


def test_a_long_compressed_shard_resumes_inside(tmp_path):
    """Its first segments are committed before the kill, and are not computed again."""
    (tmp_path / "in").mkdir()
    corpora.write_shard(tmp_path / "in" / "a.jsonl.gz", corpora.docs(150))
    stages = [{"use": "length_filter", "min_chars": 1}, {"use": "exact_dedup"}]
    recipe = corpora.write_recipe(tmp_path, stages, input={"shards": ["in/*"], "piece_bytes": 8192})
    report = dataselect.run(recipe)
    identity = next((tmp_path / "work" / "identity").rglob("*.json"))
    record = json.loads(identity.read_text())
    assert len(record["segments"]) > 3
    shutil.rmtree(tmp_path / "out")
    # As a kill during the third segment leaves it:
    identity.write_text(json.dumps({**record, "segments": record["segments"][:2], "complete": False}))
    columns = sorted((tmp_path / "work" / "columns").rglob("*"), key=lambda p: p.stat().st_mtime_ns)
    before = {path: path.stat().st_mtime_ns for path in columns if path.is_file()}
    again = dataselect.run(recipe)
    assert again["digest"] == report["digest"]
    assert sum(path.stat().st_mtime_ns != time for path, time in before.items()) == 3 * (
        len(record["segments"]) - 2
    )


def test_temporary_files_of_killed_writers_are_removed(tmp_path):
    corpora.make_corpus(tmp_path / "in", 6)
    recipe = corpora.write_recipe(tmp_path, [{"use": "exact_dedup"}])
    (tmp_path / "out" / "000001-000000000000" / "shards").mkdir(parents=True)
    (tmp_path / "work" / "columns").mkdir(parents=True)
    gone = 2**22 + 1  # above every process id
    for folder in ("out", "out/000001-000000000000/shards", "work/columns"):
        (tmp_path / folder / f".tmp-{gone}-12345678").touch()
    dataselect.run(recipe)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_killed_runs_end_with_the_same_digest(tmp_path):
    recipe = corpora.make_project(tmp_path)
    script = Path(__file__).parents[1] / "scripts" / "kill_test.py"
    done = subprocess.run(
        [sys.executable, str(script), str(recipe), "--kills", "3", "--folder", str(tmp_path / "kill")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same digest, 0 temporary files left" in done.stdout
