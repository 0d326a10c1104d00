"""The README.md of an output: `datasets` loads the kept rows by it; its text is a function of the run."""

from __future__ import annotations

import json
import re
import shutil

import corpora
import pytest
import yaml

import dataselect
from dataselect import card
from dataselect.planning.recipe import load_recipe

STAGES = [{"use": "length_filter", "min_chars": 150}, {"use": "exact_dedup"}]


@pytest.fixture(scope="module", autouse=True)
def hub_is_far(tmp_path_factory):
    """`datasets` without a network and with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        datasets.disable_progress_bars()
        yield


def load(path, tmp_path, *args, **kwargs):
    import datasets

    return datasets.load_dataset(str(path), *args, cache_dir=str(tmp_path / "hf"), **kwargs)


def published(folder, shards, n_docs=40, stages=STAGES, **sections):
    corpora.make_corpus(folder / "in", n_docs, shards)
    corpora.make_target(folder / "target.jsonl")
    sections["output"] = {"folder": "out", "dropped": True, **sections.get("output", {})}
    spec = {"shards": ["in/**/*.*"], **sections.pop("input", {})}
    report = dataselect.run(corpora.write_recipe(folder, stages, input=spec, **sections), workers=1)
    return folder / "out" / "current", report


def front_and_text(folder):
    _, front, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


SAME = [
    "a.jsonl",
    "b.jsonl.gz",
    "c.jsonl.zst",
    "d.jsonl.bz2",
    "sub/e.jsonl.xz",
    "f.ndjson",
    "sub/deep/g.json.gz",
]


@pytest.mark.parametrize("names", [SAME, ["a.parquet", "sub/b.parquet"], ["a.arrow", "sub/b.arrow"]], ids=str)
def test_the_folder_loads_as_exactly_the_kept_rows(tmp_path, names):
    folder, report = published(tmp_path, names)
    loaded = load(folder, tmp_path)
    assert list(loaded) == ["train"]
    assert sorted(loaded["train"]["id"]) == sorted(corpora.kept_ids(tmp_path / "out"))
    assert len(loaded["train"]) == report["rows"]["kept"] > 0
    texts = {doc.id: doc.text for i in range(len(names)) for doc in corpora.docs(40, first=40 * i)}
    assert all(texts[row["id"]] == row["text"] for row in loaded["train"])


@pytest.mark.parametrize("form", ["jsonl.xz", "parquet"])
def test_mixed_input_of_one_output_format_loads(tmp_path, form):
    # JSONL and Parquet rows have other columns; Parquet output of both would need one schema.
    names = ["a.jsonl", "b.jsonl.zst"]
    folder, _ = published(tmp_path, names, output={"format": form})
    assert sorted(load(folder, tmp_path)["train"]["id"]) == sorted(corpora.kept_ids(tmp_path / "out"))


def test_an_output_of_several_formats_is_refused_and_its_card_says_how_to_load_it(tmp_path, monkeypatch):
    import datasets

    folder, _ = published(tmp_path, ["a.jsonl", "b.jsonl.zst", "c.parquet", "d.arrow"])
    with pytest.raises(ValueError, match="same data file format for all splits"):
        load(folder, tmp_path)
    _, text = front_and_text(folder)
    calls = re.findall(r"^datasets\.load_dataset\(.*$", text, re.MULTILINE)
    assert len(calls) == 3
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    loaded = [row for call in calls for row in eval(call, {"datasets": datasets})["id"]]
    assert sorted(loaded) == sorted(corpora.kept_ids(tmp_path / "out"))


def test_an_output_without_rows_has_a_card_and_loads_nothing(tmp_path):
    folder, _ = published(tmp_path, ["a.jsonl"], stages=[{"use": "length_filter", "min_chars": 10**6}])
    with pytest.raises(FileNotFoundError):
        load(folder, tmp_path)
    assert "No row was kept" in front_and_text(folder)[1]


def test_the_card_holds_funnel_recipe_and_input(tmp_path):
    folder, report = published(tmp_path, ["a.jsonl", "b.parquet"], stages=corpora.ALL_STAGES)
    front, text = front_and_text(folder)
    assert front["tags"] == ["dataselect"]
    assert front["size_categories"] == ["n<1K"]
    assert "license" not in front
    for stage in report["funnel"]:
        assert f"| {stage['stage']} | {stage['in']['docs']:,} | {stage['out']['docs']:,} |" in text
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["digest"] in text
    assert manifest["row_digest"] in text
    for piece in manifest["pieces"]:
        assert f"| {piece['piece']} | 1 | 40 | `{piece['input']['digest']}` |" in text
    assert str(tmp_path) not in (folder / "README.md").read_text()
    # Its recipe runs, and gives the same rows.
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "in", again / "in")
    shutil.copy(tmp_path / "target.jsonl", again)
    (again / "recipe.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    load_recipe(again / "recipe.yaml")
    same = dataselect.run(again / "recipe.yaml", workers=2)
    assert (same["digest"], same["row_digest"]) == (manifest["digest"], manifest["row_digest"])
    assert (again / "out/current/README.md").read_bytes() == (folder / "README.md").read_bytes()


def test_the_card_depends_on_the_result_alone(tmp_path):
    cards = set()
    for name, workers, order in (("x", 1, 1), ("y", 2, -1)):
        corpora.make_corpus(tmp_path / name / "in", 40, ["a.jsonl", "b.jsonl.gz"][::order])
        recipe = corpora.write_recipe(
            tmp_path / name, STAGES, input={"shards": ["in/*"], "batch_rows": 5 * workers}
        )
        dataselect.run(recipe, workers=workers)
        cards.add((tmp_path / name / "out/current/README.md").read_bytes())
    assert len(cards) == 1


def manifest_of(n_pieces, **changes):
    flow = {"in": {"docs": 9, "n_bytes": 90, "n_words": 9}, "out": {"docs": 3, "n_bytes": 30, "n_words": 3}}
    flow["dropped"] = {"a | b": {"docs": 6}}
    pieces = [
        {"piece": f"p{i}.jsonl", "files": {}, "input": {"n_shards": 1, "n_rows": 1, "digest": "00"}}
        for i in range(n_pieces)
    ]
    return {
        "dataselect": "0", "digest": "d", "row_digest": "r", "versions": {}, "fitted": {}, "bad_shards": {},
        "recipe": {"input": {}, "stages": [{"use": "s"}], "output": {}},
        "ledger": {
            "rows_in": 9,
            "rows_kept": 3,
            "rows_written": 3,
            "rows_heldout": 0,
            "quarantined": {},
            "stages": [flow],
        },
        "pieces": pieces,
    } | changes  # fmt: skip


def test_long_lists_are_cut_and_cells_are_escaped():
    text = card.render(manifest_of(1_000, bad_shards={f"b{i}.gz": "is\ncut" for i in range(60)}))
    assert "... and 950 more, in `manifest.json`." in text
    assert "... and 10 more" in text
    assert "| s | a \\| b | 6 |" in text
    assert "| b0.gz | is cut |" in text


@pytest.mark.parametrize(
    "n_rows, name",
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (123_456, "100K<n<1M"),
        (10**12 - 1, "100B<n<1T"),
        (10**14, "n>1T"),
    ],
)
def test_sizes_are_named_as_on_the_hub(n_rows, name):
    manifest = manifest_of(1)
    manifest["ledger"]["rows_written"] = n_rows
    assert f"- {name}\n" in card.render(manifest)
