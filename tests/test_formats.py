"""Formats beside plain lines and Parquet: bz2 and xz, Arrow streams, folders that `datasets` saved."""

from __future__ import annotations

import json
import shutil

import corpora
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataselect
from dataselect.core.errors import BadShard, RecipeError
from dataselect.io.arrow_stream import batch_offsets, content_digest
from dataselect.io.reader import ShardSource, iter_file_texts
from dataselect.io.store import store_at
from dataselect.planning.shards import list_shards

MEMBERS = ("a.jsonl.bz2", "b.jsonl.xz", "c.ndjson.bz2", "sub/d.json.xz")


def project(folder, shards, docs_per_shard=60, **sections):
    """A recipe over shards of these names."""
    corpora.make_corpus(folder / "in", docs_per_shard, shards)
    spec = {"shards": ["in/**/*.*"], **sections.pop("input", {})}
    return corpora.write_recipe(folder, [{"use": "exact_dedup"}], input=spec, **sections)


# bz2 and xz --------------------------------------------------------------------------------------------


def test_bz2_and_xz_shards_stay_what_they_are(tmp_path):
    recipe = project(tmp_path, MEMBERS, output={"dropped": True})
    report = dataselect.run(recipe, workers=2)
    kept = set(corpora.kept_ids(tmp_path / "out"))
    assert 0 < len(kept) < report["rows"]["in"] == 240
    for i, name in enumerate(sorted(MEMBERS)):
        rows = corpora.docs(60, first=i * 60)
        expected = b"".join(row.line() for row in rows if row.id in kept)
        assert corpora.unpacked(corpora.live(tmp_path / "out") / "shards" / name) == expected
        dropped = corpora.unpacked(corpora.live(tmp_path / "out") / "dropped" / name).splitlines()
        assert [json.loads(line)["id"] for line in dropped] == [row.id for row in rows if row.id not in kept]


def test_their_output_depends_on_rows_alone(tmp_path):
    digests = set()
    for i, (workers, piece_bytes) in enumerate([(1, 128 << 20), (2, 4096), (2, 20_000)]):
        # 4,096 bytes a piece: every shard has several segments.
        spec = {"piece_bytes": piece_bytes, "batch_rows": 7 + 90 * i}
        recipe = project(tmp_path / str(i), MEMBERS[:2], 200, input=spec)
        report = dataselect.run(recipe, workers=workers)
        digests.add((report["digest"], report["row_digest"]))
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["a.jsonl.bz2", "a.jsonl.xz"])
def test_a_cut_shard_stops_the_run_by_name_and_a_whole_one_goes_on(tmp_path, name):
    recipe = project(tmp_path, [name, "b.jsonl"], 300, input={"piece_bytes": 8192})
    shard = tmp_path / "in" / name
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(BadShard, match=rf"{name}: the \w+ stream is truncated .*fetch or make the file"):
        dataselect.run(recipe, workers=1)
    assert not (tmp_path / "out/manifest.json").exists()
    shard.write_bytes(whole)
    assert dataselect.run(recipe, workers=1)["rows"]["in"] == 600


@pytest.mark.parametrize("ending", [".jsonl.bz2", ".jsonl.xz", ".arrow", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"x", b"hello, this is nothing at all"])
def test_a_shard_that_is_none_is_named(tmp_path, ending, content):
    recipe = project(tmp_path, ["a.jsonl"], 5)
    (tmp_path / "in" / f"b{ending}").write_bytes(content)
    with pytest.raises(BadShard, match=rf"b{ending}: .*truncated"):
        dataselect.run(recipe, workers=1)
    assert not (tmp_path / "out/manifest.json").exists()


# Arrow, and folders that `datasets` saved ----------------------------------------------------------------


def test_arrow_shards_stay_arrow_streams_with_their_schema_and_values(tmp_path):
    recipe = project(tmp_path, ["a.arrow", "b.jsonl"], output={"dropped": True})
    dataselect.run(recipe, workers=2)
    kept, live = corpora.kept_ids(tmp_path / "out"), corpora.live(tmp_path / "out")
    before = read_arrow(tmp_path / "in/a.arrow")
    after = read_arrow(live / "shards/a.arrow")
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.to_pylist() == [row for row in before.to_pylist() if row["id"] in kept]
    dropped = read_arrow(live / "dropped/a.arrow").to_pylist()
    assert sorted(row["id"] for row in dropped) == sorted(set(before["id"].to_pylist()) - set(kept))
    assert {row["_dropped_by"] for row in dropped} == {"exact_dedup"}


def test_arrow_output_depends_on_rows_alone_and_is_the_rows_of_parquet(tmp_path):
    row_digests = set()
    for piece_bytes, names in ((128 << 20, ["a.arrow"]), (8192, ["a.arrow"]), (128 << 20, ["a.parquet"])):
        found = set()
        for workers, batch_rows in ((1, 16_384), (2, 13)):
            spec = {"piece_bytes": piece_bytes, "batch_rows": batch_rows}
            recipe = project(tmp_path / f"{piece_bytes}{names[0]}{workers}", names, 300, input=spec)
            report = dataselect.run(recipe, workers=workers)
            found.add(report["digest"])
            row_digests.add(report["row_digest"])
        assert len(found) == 1
    assert len(row_digests) == 1


@pytest.mark.parametrize("form", ["parquet", "jsonl.zst"])
def test_arrow_shards_are_converted_like_parquet_ones(tmp_path, form):
    recipe = project(tmp_path, ["a.arrow", "b.parquet"], output={"format": form})
    dataselect.run(recipe, workers=1)
    arrow, parquet = (corpora.live(tmp_path / "out") / "shards" / f"{n}.{form}" for n in "ab")
    if form == "parquet":
        assert pq.read_schema(arrow).equals(pq.read_schema(parquet), check_metadata=True)
    else:
        first, second = (json.loads(corpora.unpacked(path).splitlines()[0]) for path in (arrow, parquet))
        assert first.keys() == second.keys()


def read_arrow(path):
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with `ds`, a Dataset saved in two files, and `dict`, a DatasetDict of its two halves."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("saved")
        patch.setenv("HF_HOME", str(folder / "hf"))
        import datasets

        datasets.disable_progress_bars()
        rows = corpora.docs(300)
        columns = {
            "id": [r.id for r in rows],
            "text": [r.text for r in rows],
            "kind": [i % 2 for i in range(300)],
        }
        whole = datasets.Dataset.from_dict(columns).cast_column("kind", datasets.ClassLabel(names=["a", "b"]))
        whole.save_to_disk(str(folder / "ds"), num_shards=2)
        halves = {"train": whole.select(range(200)), "test": whole.select(range(200, 300))}
        datasets.DatasetDict(halves).save_to_disk(str(folder / "dict"))
    return folder


def saved_recipe(folder, *patterns, **sections):
    spec = {"shards": [str(pattern) for pattern in patterns]}
    return corpora.write_recipe(folder, [{"use": "length_filter", "min_chars": 150}], input=spec, **sections)


def test_a_saved_dataset_is_read_by_its_folder_and_what_is_kept_loads_with_its_features(saved, tmp_path):
    import datasets

    report = dataselect.run(saved_recipe(tmp_path, saved / "ds", output={"add": ["n_chars"]}), workers=2)
    whole = datasets.load_from_disk(str(saved / "ds"))
    expected = whole.filter(lambda row: len(row["text"]) >= 150, load_from_cache_file=False)
    assert report["rows"]["in"] == 300
    assert corpora.kept_ids(tmp_path / "out") == expected["id"][:]
    shards = corpora.live(tmp_path / "out") / "shards"
    assert sorted(path.name for path in (shards / "ds").iterdir()) == [
        "data-00000-of-00002.arrow",
        "data-00001-of-00002.arrow",
    ]
    files = sorted(str(path) for path in shards.rglob("*.arrow"))
    loaded = datasets.load_dataset("arrow", data_files=files, cache_dir=str(tmp_path / "hf"))["train"]
    assert loaded["n_chars"][:] == [len(text) for text in expected["text"]]
    assert loaded.features["kind"] == whole.features["kind"]
    assert loaded.remove_columns("n_chars").to_list() == expected.to_list()


def test_a_split_of_a_saved_dict_is_named_by_its_folder(saved, tmp_path):
    assert dataselect.run(saved_recipe(tmp_path / "1", saved / "dict/train"), workers=1)["rows"]["in"] == 200
    both = saved_recipe(tmp_path / "2", saved / "dict/*")
    assert dataselect.run(both, workers=1)["rows"]["in"] == 300
    every = [shard.name for shard in list_shards([f"{saved}/**"])]
    assert every == [
        "dict/test/data-00000-of-00001.arrow",
        "dict/train/data-00000-of-00001.arrow",
        "ds/data-00000-of-00002.arrow",
        "ds/data-00001-of-00002.arrow",
    ]
    with pytest.raises(
        RecipeError, match=r"holds several splits; name those you want: .*dict/train, .*/test"
    ):
        list_shards([f"{saved}/dict"])


def test_what_is_wrong_with_a_saved_folder_is_one_sentence(saved, tmp_path):
    folder = tmp_path / "ds"
    shutil.copytree(saved / "ds", folder)
    state = json.loads((folder / "state.json").read_text())
    (folder / "data-00001-of-00002.arrow").rename(folder / "elsewhere")
    with pytest.raises(
        RecipeError, match=r"ds/state.json names data-00001-of-00002.arrow, which is not there"
    ):
        list_shards([str(folder)])
    (folder / "elsewhere").rename(folder / "data-00001-of-00002.arrow")
    old = state | {"_indices_data_files": [{"filename": "indices.arrow"}]}
    (folder / "state.json").write_text(json.dumps(old))
    with pytest.raises(RecipeError, match=r"an indices mapping, .*flatten_indices\(\) and save it again"):
        list_shards([str(folder)])
    (folder / "state.json").unlink()
    with pytest.raises(
        RecipeError, match=r"no file matches .* has dataset_info.json but no state.json; .*\.arrow"
    ):
        list_shards([str(folder)])
    (folder / "dataset_info.json").unlink()
    with pytest.raises(RecipeError, match=r"no file matches .*none that `datasets` saved; name its files"):
        list_shards([str(folder)])


def test_a_misspelt_column_of_a_saved_folder_is_found_before_the_run(saved, tmp_path):
    recipe = saved_recipe(tmp_path, saved / "ds")
    with pytest.raises(
        RecipeError, match=r"no column 'txt' in ds/data-0.*, which has id, .* did you mean 'text'"
    ):
        dataselect.plan(recipe, sets=["input.text=txt"])


def test_a_saved_folder_on_an_object_store_is_read_too(saved, tmp_path):
    root = f"memory://{tmp_path.name}"
    for path in (saved / "ds").iterdir():
        with store_at(root).commit(f"ds/{path.name}") as file:
            file.write(path.read_bytes())
    names = ["ds/data-00000-of-00002.arrow", "ds/data-00001-of-00002.arrow"]
    for pattern in ("ds", "*", "ds/*"):
        assert [s.name.removeprefix("ds/") for s in list_shards([f"{root}/{pattern}"])] == [
            name.removeprefix("ds/") for name in names
        ]
    remote, local = list_shards([f"{root}/ds"])[0], list_shards([str(saved / "ds")])[0]
    assert content_digest(ShardSource(remote)) == content_digest(ShardSource(local))
    assert batch_offsets(ShardSource(remote)) == batch_offsets(ShardSource(local))


def test_a_saved_folder_can_be_a_target(saved):
    path = next((saved / "ds").glob("*.arrow"))
    texts = [text for array in iter_file_texts(str(path), "text") for text in array.to_pylist()]
    assert texts == [row.text for row in corpora.docs(150)]
