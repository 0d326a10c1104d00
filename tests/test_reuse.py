"""What is cached, and how shards are cut, decides nothing."""

from __future__ import annotations

import random

import corpora
import pytest
import zstandard

import dataselect
from dataselect.core.errors import DataselectError
from dataselect.engine.job import StageCall
from dataselect.stages import load

STAGE = """
import numpy as np
from dataselect.stages.base import MapStage

class Score(MapStage):
    def output_columns(self):
        return {"score": "float32"}

    def columns(self, texts, model):
        return {"score": np.full(len(texts) + EXTRA, 0.1), **OTHERS}

    def keep(self, columns):
        return {"rounded down": np.asarray(columns["score"], np.float64) <= 0.1}
"""


def project_with(folder, stages, shards, **sections):
    for name, rows in shards.items():
        corpora.write_shard(folder / "in" / name, rows)
    sections["input"] = {"shards": "in/*", **sections.get("input", {})}
    return corpora.write_recipe(folder, stages, **sections)


def write_stage(folder, extra="0", others="{}"):
    (folder / "s.py").write_text(STAGE.replace("EXTRA", extra).replace("OTHERS", others))


def test_a_row_that_moves_to_the_next_shard_of_its_group_moves_what_points_to_it(tmp_path):
    docs = corpora.docs(5)
    copies = [corpora.Doc("copy", docs[4].text)]
    stages = [{"use": "exact_dedup"}]
    recipe = project_with(
        tmp_path, stages, {"a.jsonl": docs[:3], "b.jsonl": docs[3:], "c.jsonl": copies}, output={}
    )

    def original():
        dataselect.run(recipe)
        last = corpora.decisions(tmp_path / "out")[-1]
        return last["duplicate_of_shard"], last["duplicate_of_row"]

    assert original() == ("b.jsonl", 1)
    corpora.write_shard(tmp_path / "in" / "a.jsonl", docs[:2])
    corpora.write_shard(tmp_path / "in" / "b.jsonl", docs[2:])
    assert original() == ("b.jsonl", 2)


def test_rules_see_the_declared_type_whether_the_column_is_computed_or_stored(tmp_path):
    write_stage(tmp_path)
    stages = [{"use": "s.py:Score"}, {"use": "length_filter", "min_chars": 1}]
    recipe = project_with(tmp_path, stages, {"a.jsonl": corpora.docs(20)})
    computed = dataselect.run(recipe)
    stored = dataselect.run(recipe, sets=["stages.1.as=length"])
    assert computed["rows"] == stored["rows"]
    assert all(row["length"] for row in corpora.decisions(tmp_path / "out") if row["stage"] is None)


@pytest.mark.parametrize(
    "extra, others, message",
    [("1", "{}", "has 21 values for 20 documents"), ("0", "{'reason': texts.array}", "columns() gave")],
)
def test_a_stage_whose_columns_are_not_the_declared_ones_is_refused(tmp_path, extra, others, message):
    write_stage(tmp_path, extra, others)
    recipe = project_with(tmp_path, [{"use": "s.py:Score"}], {"a.jsonl": corpora.docs(20)})
    with pytest.raises(DataselectError) as error:
        dataselect.run(recipe)
    assert message in str(error.value)


def test_a_stage_is_made_of_its_file_as_it_was_planned(tmp_path):
    write_stage(tmp_path)
    planned = load("s.py:Score", tmp_path)
    call = StageCall("s.py:Score", {}, str(tmp_path), planned.source())
    (tmp_path / "s.py").unlink()
    assert call.make().source_digest() == planned.source_digest()


@pytest.mark.parametrize("piece_bytes", ["128MiB", "40KiB"])
def test_a_bad_shard_is_left_out_whole_however_it_is_cut(tmp_path, piece_bytes):
    draw = random.Random(1)
    rows = [corpora.Doc(str(i), " ".join(f"{draw.getrandbits(64):x}" for _ in range(30))) for i in range(600)]
    frames = [zstandard.compress(corpora.jsonl(rows[i : i + 30])) for i in range(0, 600, 30)]
    damaged = bytearray(b"".join(frames))
    middle = len(damaged) - len(frames[-1]) // 2
    damaged[middle : middle + 40] = bytes(40)
    sections = {"input": {"on_bad_shard": "quarantine", "piece_bytes": piece_bytes}}
    recipe = project_with(tmp_path, [{"use": "exact_dedup"}], {"b.jsonl": corpora.docs(3)}, **sections)
    (tmp_path / "in" / "a.jsonl.zst").write_bytes(damaged)
    report = dataselect.run(recipe)
    assert (report["rows"]["in"], list(report["bad_shards"])) == (3, ["a.jsonl.zst"])


def test_a_conversion_reads_rows_as_every_read_does(tmp_path):
    recipe = project_with(tmp_path, [{"use": "exact_dedup"}], {}, output={"format": "parquet"})
    (tmp_path / "in").mkdir(exist_ok=True)
    deep = "[" * 3000 + "]" * 3000
    (tmp_path / "in" / "a.jsonl").write_text(f'{{"id": "1", "text": "a", "x": {deep}}}\n')
    assert dataselect.run(recipe)["rows"]["kept"] == 1


def test_converted_shards_never_share_a_name(tmp_path):
    shards = {
        "a.jsonl": corpora.docs(1),
        "a.parquet": corpora.docs(1, 1),
        "a.jsonl.parquet": corpora.docs(1, 2),
    }
    recipe = project_with(tmp_path, [{"use": "exact_dedup"}], shards, output={"format": "parquet"})
    dataselect.run(recipe)
    assert len(list((corpora.live(tmp_path / "out") / "shards").iterdir())) == 3
