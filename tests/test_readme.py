"""The README is part of the product: its commands exist, its recipe and its stage run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    """Every `dataselect ...` line of the shell blocks, without comments."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.startswith("dataselect ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample):
    """A folder laid out as the README's recipe wants it."""
    folder = tmp_path_factory.mktemp("readme")
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    for path in sorted((sample / "raw").rglob("*")):
        if path.name.endswith((".jsonl.zst", ".parquet")):
            shutil.copy(path, raw)
    target = (sample / "target.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "data" / "target.jsonl").write_text("".join(target[::2]), "utf-8")
    (folder / "data" / "heldout.jsonl").write_text("".join(target[1::2]), "utf-8")
    for name in ("hq.jsonl", "lq.jsonl"):
        shutil.copy(sample / name, folder)
    recipe = next(block for block in blocks("yaml") if block.startswith("input:"))
    (folder / "my.yaml").write_text(recipe)
    return folder


def run(arguments, folder):
    command = [sys.executable, "-m", "dataselect", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def published(folder):
    """The folder after the README's commands, in order; the model comes first."""
    pytest.importorskip("fasttext", reason="training needs the fasttext package")
    lines = sorted(commands(), key=lambda line: not line.startswith("dataselect train"))
    assert {line.split()[1] for line in lines} == {"plan", "run", "ls", "train", "compare"}
    for line in lines:
        done = run(shlex.split(line)[1:], folder)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    return folder


def test_the_commands_of_the_readme_list_the_shards(published):
    shards = run(["ls", "out"], published).stdout.split()
    assert shards
    assert all((published / name).is_file() for name in shards)


def test_the_outputs_of_the_readme_are_there(published):
    current = published / "out" / "current"
    for name in ("shards", "decisions", "dropped", "fitted", "report.json", "manifest.json"):
        assert (current / name).exists(), name
    assert json.loads((current / "report.json").read_text())["rows"]["kept"] > 0


def test_kept_shards_load_with_hugging_face_datasets(published):
    current = published / "out" / "current" / "shards"
    import datasets

    files = [str(path) for path in current.glob("*.jsonl.zst")]
    loaded = datasets.load_dataset("json", data_files=files, cache_dir=str(published / "hf"))["train"]
    assert {"id", "text", "quality"} <= set(loaded.column_names)
    files = [str(path) for path in current.glob("*.parquet")]
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(published / "hf"))["train"]
    assert {"id", "text", "quality"} <= set(loaded.column_names)


def test_the_stage_of_the_readme_runs(folder):
    source = next(block for block in blocks("python") if "class NoShouting" in block)
    (folder / "my_stages.py").write_text(source)
    recipe = yaml.safe_load((folder / "my.yaml").read_text())
    recipe["stages"] = [{"use": "my_stages.py:NoShouting", "max_share": 0.2}]
    recipe["output"] = {"folder": "shouting"}
    (folder / "own.yaml").write_text(yaml.safe_dump(recipe))
    done = run(["run", "own.yaml", "--json"], folder)
    assert done.returncode == 0, done.stderr
    flow = json.loads(done.stdout)["funnel"][0]
    assert 0 < flow["out"]["docs"] < flow["in"]["docs"]


def test_every_exit_code_and_command_is_documented():
    from typer.main import get_command

    from dataselect.cli import app

    for name in get_command(app).commands:
        assert f"`dataselect {name}" in README, name
    for code in ("| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |"):
        assert code in README


def test_every_stage_is_in_the_readme_table():
    from dataselect.stages import registry

    for use in registry():
        assert f"| `{use}` |" in README, use


def test_the_stages_in_running_text_are_stages():
    from dataselect.stages import registry

    stages = [yaml.safe_load(text) for text in re.findall(r"`(\{use: [^`]*\})`", README)]
    assert {"minhash_dedup", "url_dedup", "field_dedup"} <= {stage["use"] for stage in stages}
    for stage in stages:
        registry()[stage.pop("use")].model_validate(stage)


def test_workflow_and_recipe_blocks_are_yaml():
    for block in blocks("yaml"):
        assert yaml.safe_load(block)
