"""Recipes: every mistake is one line that says where, what was expected and what was there."""

# ruff: noqa: E501 - a mistake and its message are read side by side

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dataselect.core.errors import RecipeError
from dataselect.planning.recipe import RESERVED_COLUMNS, load_recipe
from dataselect.planning.schema import recipe_schema
from dataselect.stages import registry

GOOD = """\
input:
  shards: in/*
  text: text
stages:
  - {use: length_filter, min_chars: 5}
  - {use: minhash_dedup, threshold: 0.8}
  - use: select
    method: uniform
    keep: {docs: 5}
output: {folder: out}
work: work
"""
INPUT = "input:\n  shards: in/*\n  text: text\n"
STAGES = GOOD[GOOD.index("stages") : GOOD.index("output")]
MINHASH = "use: minhash_dedup, threshold: 0.8"


@pytest.fixture
def load(tmp_path):
    def load(text=GOOD, sets=()):
        (tmp_path / "r.yaml").write_text(text)
        return load_recipe(tmp_path / "r.yaml", sets)

    return load


def mistakes(load, text, sets=()):
    """Lines of the message, without the folder."""
    with pytest.raises(RecipeError) as failure:
        load(text, sets)
    return [line.replace(str(_folder(failure)) + "/", "") for line in str(failure.value).split("\n")]


def _folder(failure):
    found = re.search(r"(/\S+)/r\.yaml", str(failure.value))
    return Path(found[1]) if found else Path("/nowhere")


ONE_LINE = {
    # Unknown keys, at every level, with the nearest right one
    "unknown section": ("work: work", "wrok: work", "11: wrok: unknown key 'wrok'; did you mean 'work'?"),
    "unknown in input": ("text: text", "txt: text", "3: input.txt: unknown key 'txt'; did you mean 'text'?"),
    "unknown in output": (
        "{folder: out}",
        "{folder: out, formt: same}",
        "10: output.formt: unknown key 'formt'; did you mean 'format'?",
    ),
    "unknown in stage": (
        "threshold",
        "treshold",
        "6: stages[1].treshold: unknown key 'treshold'; did you mean 'threshold'?",
    ),
    "unknown in keep": ("docs", "doc", "9: stages[2].keep.doc: unknown key 'doc'; did you mean 'docs'?"),
    "unknown in expect": (
        "work: work",
        "expect: {min_row: 1}",
        "11: expect.min_row: unknown key 'min_row'; did you mean 'min_rows'?",
    ),
    "unknown and nothing near": (
        "work: work",
        "expect: {zzz: 1}",
        "11: expect.zzz: unknown key 'zzz' (known: min_rows, max_rows, min_kept, max_kept)",
    ),
    "key is no text": ("work: work", "5: work", ": [5]: expected a text as key, got 5"),
    "key twice": ("  text: text", "  text: text\n  text: body", "3: input.text: this key is there twice"),
    # Stages
    "unknown stage": (
        "minhash_dedup",
        "minhash",
        "6: stages[1].use: unknown stage 'minhash'; did you mean 'minhash_dedup'?",
    ),
    "stage without use": (
        "use: minhash_dedup, ",
        "",
        "6: stages[1]: expected `use: <stage name>`; `dataselect stages` lists them",
    ),
    "use is no text": (
        "use: minhash_dedup",
        "use: 5",
        "6: stages[1]: expected `use: <stage name>`; `dataselect stages` lists them",
    ),
    "stage is a text": (
        "{use: minhash_dedup, threshold: 0.8}",
        "minhash_dedup",
        "6: stages[1]: expected keys and values, got 'minhash_dedup'",
    ),
    "no stages": (STAGES, "stages: []\n", "4: stages: expected at least 1 item, got 0"),
    "stages are a map": (STAGES, "stages: {use: x}\n", "4: stages: expected a list, got {'use': 'x'}"),
    # Missing
    "missing input": (INPUT, "", ": input: missing; it has no default"),
    "missing stages": (STAGES, "", ": stages: missing; it has no default"),
    "missing output": ("output: {folder: out}\n", "", ": output: missing; it has no default"),
    "missing shards": ("  shards: in/*\n", "", "1: input.shards: missing; it has no default"),
    "missing folder": ("{folder: out}", "{}", "10: output.folder: missing; it has no default"),
    "missing keep": (
        "    keep: {docs: 5}\n",
        "",
        "7: stages[2].keep: uniform needs a budget, such as {fraction: 0.2}",
    ),
    "missing target": (MINHASH, "use: ngram_importance", "6: stages[1].target: missing; it has no default"),
    # Types
    "text for a number": (
        "min_chars: 5",
        "min_chars: many",
        "5: stages[0].min_chars: expected an integer >= 0, got 'many'",
    ),
    "fraction for an integer": (
        "min_chars: 5",
        "min_chars: 5.5",
        "5: stages[0].min_chars: expected an integer >= 0, got 5.5",
    ),
    "list for a number": (
        "min_chars: 5",
        "min_chars: [1]",
        "5: stages[0].min_chars: expected an integer >= 0, got [1]",
    ),
    "number for a text": ("text: text", "text: 5", "3: input.text: expected a text or a list, got 5"),
    "number in a list of texts": ("text: text", "text: [a, 5]", "3: input.text[1]: expected a text, got 5"),
    "number for shards": ("shards: in/*", "shards: 5", "2: input.shards: expected a list, got 5"),
    "no shards": ("shards: in/*", "shards: []", "2: input.shards: expected at least 1 item, got 0"),
    "number for true": (
        "{folder: out}",
        "{folder: out, dropped: 3}",
        "10: output.dropped: expected true or false, got 3",
    ),
    "text for true": (
        "{folder: out}",
        "{folder: out, dropped: maybe}",
        "10: output.dropped: expected true or false, got 'maybe'",
    ),
    "unknown format": (
        "{folder: out}",
        "{folder: out, format: csv}",
        "10: output.format: expected 'same', 'jsonl', 'jsonl.gz', 'jsonl.zst', 'jsonl.bz2', 'jsonl.xz' or 'parquet', got 'csv'",
    ),
    "unknown type": (
        "{folder: out}",
        "{folder: out, columns: {a: int}}",
        "10: output.columns.a: expected 'string', 'int64', 'float64' or 'bool', got 'int'",
    ),
    "number for keep": (
        "{docs: 5}",
        "0.2",
        "9: stages[2].keep: expected keys and values (docs, fraction, of, bytes, words, tokens, chars), got 0.2",
    ),
    # Ranges
    "threshold 8": ("0.8", "8", "6: stages[1].threshold: expected a number in (0, 1], got 8"),
    "threshold 0": ("0.8", "0", "6: stages[1].threshold: expected a number in (0, 1], got 0"),
    "threshold NaN": ("0.8", ".nan", "6: stages[1].threshold: expected a number in (0, 1], got nan"),
    "threshold infinite": ("0.8", ".inf", "6: stages[1].threshold: expected a number in (0, 1], got inf"),
    "ngram 65": ("0.8", "0.8, ngram: 65", "6: stages[1].ngram: expected an integer in [1, 64], got 65"),
    "fraction 20": (
        "docs: 5",
        "fraction: 20",
        "9: stages[2].keep.fraction: expected a number in [0, 1], got 20",
    ),
    "negative bytes": ("docs: 5", "bytes: -5", "9: stages[2].keep.bytes: expected a number >= 0, got -5"),
    "no bytes": (
        "docs: 5",
        "bytes: 10XB",
        "9: stages[2].keep.bytes: expected a number of bytes such as 500000, 64MiB or 10GB, got '10XB'",
    ),
    "small pieces": (
        "text: text",
        "piece_bytes: 10",
        "3: input.piece_bytes: expected a number >= 1024, got 10",
    ),
    "negative rows": (
        "work: work",
        "expect: {max_rows: -1}",
        "11: expect.max_rows: expected an integer >= 0, got -1",
    ),
    "share above 1": (
        "work: work",
        "expect: {min_kept: 150%}",
        "11: expect.min_kept: expected a number <= 1, got '150%'",
    ),
    "100% or 1 row": (
        "text: text",
        "max_bad_rows: 100%",
        "3: input.max_bad_rows: expected a share below 100%, or a number of rows, got '100%'",
    ),
    # Values that don't fit each other
    "two budgets": (
        "docs: 5",
        "docs: 5, fraction: 0.1",
        "9: stages[2].keep: expected exactly one of docs, fraction, bytes, words, tokens, chars, got {'docs': 5, 'fraction': 0.1}",
    ),
    "no budget": (
        "{docs: 5}",
        "{}",
        "9: stages[2].keep: expected exactly one of docs, fraction, bytes, words, tokens, chars, got {}",
    ),
    "too many bands": (
        "0.8",
        "0.8, bands: [50, 50]",
        "6: stages[1].bands: [bands, rows] must multiply to at most num_perm = 128",
    ),
    "no bands": (
        "0.8",
        "0.8, bands: [0, 4]",
        "6: stages[1].bands: [bands, rows] must multiply to at most num_perm = 128",
    ),
    "bands are a word": (
        "0.8",
        "0.8, bands: best",
        "6: stages[1].bands: expected a list or 'auto' or 'datasketch', got 'best'",
    ),
    "one band": ("0.8", "0.8, bands: [9]", "6: stages[1].bands[1]: missing; it has no default"),
    "a band is a word": ("0.8", "0.8, bands: [9, x]", "6: stages[1].bands[1]: expected an integer, got 'x'"),
    "by for uniform": (
        "method: uniform",
        "method: uniform\n    by: n_chars",
        "9: stages[2].by: uniform needs none; resample draws by weight",
    ),
    "unknown mixture": (
        "{docs: 5}",
        "{docs: 5}\n    per: n_chars\n    mixture: even",
        "11: stages[2].mixture: expected 'proportional', 'each', 'equal' or 'unimax' or keys and values (temperature, weights), got 'even'",
    ),
    "temperature of a mixture": (
        "{docs: 5}",
        "{docs: 5}\n    per: n_chars\n    mixture: {temperature: 0}",
        "11: stages[2].mixture.temperature: expected a number > 0, got 0",
    ),
    "weight below 0": (
        "{docs: 5}",
        "{docs: 5}\n    per: n_chars\n    mixture: {weights: {a: -1}}",
        "11: stages[2].mixture.weights.a: expected a number >= 0, got -1",
    ),
    "nested where it can't be": (
        "method: uniform",
        "method: systematic\n    nested: true",
        "9: stages[2].nested: systematic rounding moves other documents over the edge",
    ),
    "no by": (
        "    method: uniform\n",
        "",
        "7: stages[2].by: name a score column for top_k",
    ),
    "empty text list": ("text: text", "text: []", "3: input.text: name at least one key"),
    "overlapping texts": ("text: text", "text: [a, a.b]", "3: input.text: 'a' and 'a.b' overlap"),
    "empty key": ("text: text", "text: a..b", "3: input.text: 'a..b' is not a key or a dotted path of keys"),
    "id in the text": ("text: text", "id: text.id", "3: input.id: 'text.id' overlaps with the text 'text'"),
    # Columns
    "unknown add": (
        "{folder: out}",
        "{folder: out, add: [n_char]}",
        "10: output.add: no stage adds the column 'n_char'; did you mean 'n_chars'?",
    ),
    "same column by default": (
        MINHASH,
        "use: length_filter",
        "6: stages[1]: the column 'n_chars' is already the column of length_filter; name another with `as:`",
    ),
    "same column by name": (
        MINHASH,
        "use: length_filter, as: n_chars",
        "6: stages[1].as: the column 'n_chars' is already the column of length_filter; name another with `as:`",
    ),
    "reserved column": (
        "min_chars: 5",
        "as: draw",
        "5: stages[0].as: the column 'draw' is reserved; name another with `as:`",
    ),
    "nameless column": (
        "min_chars: 5",
        "as: ''",
        "5: stages[0].as: the column '' is reserved; name another with `as:`",
    ),
    "column added and converted": (
        "{folder: out}",
        "{folder: out, add: [n_chars], columns: {n_chars: int64}}",
        "10: output.columns.n_chars: already a column that output.add adds",
    ),
    # Files and surroundings
    "missing model": (
        MINHASH,
        "use: fasttext_quality, model: m.bin, label: hq",
        "6: stages[1].model: file not found: m.bin",
    ),
    "missing target file": (
        MINHASH,
        "use: ngram_importance, target: sub/t.jsonl",
        "6: stages[1].target: file not found: sub/t.jsonl",
    ),
    "missing stage file": (
        MINHASH,
        "use: 'no.py:X'",
        "6: stages[1].use: no.py: cannot read the stage's file: No such file or directory",
    ),
    "unset variable": (
        "folder: out",
        "folder: $NOT_SET_X",
        "10: output.folder: the environment variable NOT_SET_X is not set",
    ),
    "unset variable in braces": (
        "folder: out",
        "folder: 'a/${NOT_SET_X}/b'",
        "10: output.folder: the environment variable NOT_SET_X is not set",
    ),
    # YAML
    "open brace": (
        "{folder: out}",
        "{folder: out",
        "11: not a YAML file: while parsing a flow mapping, expected ',' or '}', but got ':'",
    ),
    "tab": (
        "  text: text",
        "\ttext: text",
        "3: not a YAML file: while scanning for the next token, found character '\\t' that cannot start any token",
    ),
    "endless": ("work: work", "work: &a [*a]", ": not a recipe: it is nested without end"),
}


@pytest.mark.parametrize("name", ONE_LINE)
def test_a_mistake_is_one_line_with_its_place(load, name):
    old, new, expected = ONE_LINE[name]
    assert old in GOOD
    place = f"r.yaml{expected}" if expected.startswith(":") else f"r.yaml:{expected}"
    assert mistakes(load, GOOD.replace(old, new)) == [place]


def test_several_mistakes_are_all_reported_each_on_its_line(load):
    text = GOOD
    for old, new in (
        ("0.8", "8"),
        ("min_chars", "min_char"),
        ("folder: out", "folder: $NOT_SET_X"),
        ("docs", "dcs"),
    ):
        text = text.replace(old, new)
    assert mistakes(load, text) == [
        "r.yaml:10: output.folder: the environment variable NOT_SET_X is not set",
        "r.yaml:5: stages[0].min_char: unknown key 'min_char'; did you mean 'min_chars'?",
        "r.yaml:6: stages[1].threshold: expected a number in (0, 1], got 8",
        "r.yaml:9: stages[2].keep.dcs: unknown key 'dcs'; did you mean 'docs'?",
    ]


def test_a_stage_after_a_wrong_item_keeps_its_number(load):
    text = GOOD.replace("- {use: length_filter, min_chars: 5}", "- length").replace("0.8", "8")
    assert mistakes(load, text) == [
        "r.yaml:5: stages[0]: expected keys and values, got 'length'",
        "r.yaml:6: stages[1].threshold: expected a number in (0, 1], got 8",
    ]


@pytest.mark.parametrize("text", ["", "5", "- a\n- b\n", "just words"])
def test_a_file_that_is_no_mapping_is_refused(load, text):
    assert mistakes(load, text) == ["r.yaml: expected the sections input, stages and output"]


def test_a_recipe_that_cannot_be_read_is_one_line(tmp_path):
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "none.yaml", "No such file or directory")):
        with pytest.raises(RecipeError, match=f"^{re.escape(str(path))}: cannot read the recipe: {why}$"):
            load_recipe(path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary.yaml: not a YAML file: "):
        load_recipe(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("x", "--set x: expected a.b=value"),
        ("=3", "--set =3: expected a.b=value"),
        ("stages.9.x=1", "--set stages.9.x=1: the recipe has no such place"),
        ("stages.x=1", "--set stages.x=1: the recipe has no such place"),
        ("input.text.x=1", "--set input.text.x=1: the recipe has no such place"),
        ("input.text=[a", "--set input.text=[a: the value is not YAML"),
        ("stages.1.threshold=8", "r.yaml:6: stages[1].threshold: expected a number in (0, 1], got 8"),
        ("expect.min_row=1", "r.yaml: expect.min_row: unknown key 'min_row'; did you mean 'min_rows'?"),
    ],
)
def test_a_wrong_assignment_is_one_line(load, assignment, message):
    assert mistakes(load, GOOD, [assignment]) == [message]


@pytest.mark.parametrize("name", sorted(RESERVED_COLUMNS))
def test_names_that_outputs_use_themselves_are_reserved(load, name):
    assert mistakes(load, GOOD.replace("min_chars: 5", f"as: {name}")) == [
        f"r.yaml:5: stages[0].as: the column '{name}' is reserved; name another with `as:`"
    ]


# What is accepted --------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_recipe_wherever_the_process_is(load, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    recipe = load()
    assert recipe.input.shards == [f"{tmp_path}/in/*"]
    assert recipe.output.folder == f"{tmp_path}/out"
    assert recipe.work == f"{tmp_path}/work"


def test_urls_and_absolute_paths_stay_as_they_are(load):
    recipe = load(
        GOOD.replace("in/*", "s3://bucket/*.parquet").replace("folder: out", "folder: /abs/x/../out")
    )
    assert recipe.input.shards == ["s3://bucket/*.parquet"]
    assert recipe.output.folder == "/abs/out"


def test_defaults(load):
    recipe = load(GOOD.replace("work: work\n", ""))
    assert Path(recipe.work).name == ".dataselect"
    assert (recipe.input.id, recipe.input.on_bad_shard, recipe.output.format) == (None, "stop", "same")
    assert recipe.expect.min_rows is None
    assert recipe.left_out == []


def test_texts_sizes_and_shares_as_people_write_them(load):
    text = GOOD.replace(
        "  text: text",
        "  text: [title, doc.body]\n  max_bad_rows: 0.1%\n  max_row_bytes: 64MiB\n  piece_bytes: 1.5 MB",
    ).replace("docs: 5", "bytes: 10GB")
    recipe = load(text + "expect: {min_kept: 5%, max_kept: 0.9}\n")
    assert recipe.input.text == ["title", "doc.body"]
    assert recipe.input.max_bad_rows == 0.001
    assert recipe.input.max_row_bytes == 64 << 20
    assert recipe.input.piece_bytes == 1_500_000
    assert recipe.stages[2].stage.keep_.bytes == 10 * 10**9
    assert (recipe.expect.min_kept, recipe.expect.max_kept) == (0.05, 0.9)


@pytest.mark.parametrize(
    "value, allowed", [("0.1%", 1000), ("0", 10), ("1", 1), ("50", 50), ("0.5", 500_000)]
)
def test_bad_rows_are_a_share_or_a_number(load, value, allowed):
    recipe = load(GOOD.replace("text: text", f"text: text\n  max_bad_rows: {value}"))
    assert recipe.input.bad_rows_allowed(1_000_000) == allowed


def test_bands_are_chosen_or_given(load):
    assert load().stages[1].stage.bands_rows() == (18, 7)
    assert load(GOOD.replace("0.8", "0.8, bands: datasketch")).stages[1].stage.bands_rows() == (9, 13)
    assert load(GOOD.replace("0.8", "0.8, bands: [14, 9]")).stages[1].stage.bands_rows() == (14, 9)


def test_assignments_change_values_by_dotted_path_and_index(load):
    recipe = load(
        sets=[
            "stages.1.threshold=0.7",
            "stages[0].min_chars=9",
            "expect.min_rows=3",
            "input.text=[a, b]",
            "output.folder=o=1",
        ]
    )
    assert recipe.stages[1].stage.threshold == 0.7
    assert recipe.stages[0].stage.min_chars == 9
    assert recipe.expect.min_rows == 3
    assert recipe.input.text == ["a", "b"]
    assert Path(recipe.output.folder).name == "o=1"


def test_environment_variables_are_filled_in(load, monkeypatch):
    monkeypatch.setenv("WHERE_X", "/some/where")
    recipe = load(GOOD.replace("in/*", "$WHERE_X/in/*").replace("folder: out", "folder: '${WHERE_X}_2/out'"))
    assert recipe.input.shards == ["/some/where/in/*"]
    assert recipe.output.folder == "/some/where_2/out"
    assert load(GOOD.replace("in/*", "in/cost$*")).input.shards[0].endswith("in/cost$*")


def test_columns_may_have_any_name(load):
    recipe = load(
        GOOD.replace("{folder: out}", "{folder: out, columns: {a b: int64, c d: string, 'x.y': bool}}")
    )
    assert recipe.output.columns == {"a b": "int64", "c d": "string", "x.y": "bool"}


def test_yaml_anchors_and_merges_are_fine(load):
    text = GOOD.replace("{use: length_filter, min_chars: 5}", "&a {use: length_filter, min_chars: 5}")
    text = text.replace("{use: minhash_dedup, threshold: 0.8}", "{<<: *a, as: other}")
    recipe = load(text)
    assert recipe.stages[1].stage.min_chars == 5
    assert recipe.stages[1].stage.as_ == "other"


def test_an_optional_stage_without_its_file_is_left_out_and_says_so(load, tmp_path):
    recipe = load(GOOD.replace(MINHASH, "use: fasttext_quality, model: m.bin, label: hq, optional: true"))
    assert [spec.use for spec in recipe.stages] == ["length_filter", "select"]
    assert recipe.left_out == [
        f"fasttext_quality: left out, because {tmp_path}/m.bin does not exist (the stage is `optional`)"
    ]


OWN_STAGE = """
from typing import ClassVar
from pydantic import Field
from dataselect.stages.base import MapStage
class Mine(MapStage):
    version: ClassVar[int] = 1
    n: int = Field(1, ge=1, description="a number")
"""


def test_a_stage_of_ones_own_is_checked_like_ours(load, tmp_path):
    (tmp_path / "mine.py").write_text(OWN_STAGE)
    text = GOOD.replace(MINHASH, "use: 'mine.py:Mine', n: 3")
    stage = load(text).stages[1].stage
    assert (stage.use, stage.n) == ("Mine", 3)
    assert stage.source_digest()
    assert mistakes(load, text.replace("n: 3", "n: 0")) == [
        "r.yaml:6: stages[1].n: expected an integer >= 1, got 0"
    ]


@pytest.mark.parametrize(
    "source, why",
    [
        ("def x(:\n", "importing it failed: SyntaxError: "),
        (
            "import no_such_module_x\n",
            "importing it failed: ModuleNotFoundError: No module named 'no_such_module_x'",
        ),
        ("raise SystemExit(3)\n", "importing it failed: SystemExit: 3"),
        ("Mine = 5\n", "'Mine' is not a stage; it must be a class derived from one of "),
        ("class Other: pass\n", "'Mine' is not a stage; it must be a class derived from one of "),
    ],
)
def test_a_stage_file_that_does_not_work_is_one_line(load, tmp_path, source, why):
    (tmp_path / "mine.py").write_text(source)
    (line,) = mistakes(load, GOOD.replace(MINHASH, "use: 'mine.py:Mine'"))
    assert line.startswith(f"r.yaml:6: stages[1].use: mine.py: {why}")


# Through the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["threshold 8", "two budgets", "tab", "unset variable", "missing stage file"]
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_the_command_line_prints_mistakes_and_exits_with_2(cli, tmp_path, verb, name):
    old, new, expected = ONE_LINE[name]
    (tmp_path / "r.yaml").write_text(GOOD.replace(old, new))
    result = cli(verb, tmp_path / "r.yaml")
    assert result.code == 2
    assert result.out == ""
    assert result.err.replace(f"{tmp_path}/", "") == f"dataselect: r.yaml:{expected}\n"
    assert not (tmp_path / "out").exists()


def test_the_schema_knows_every_stage_and_section():
    schema = recipe_schema()
    assert set(schema["properties"]) == {"input", "stages", "output", "work", "memory", "expect"}
    assert schema["required"] == ["input", "stages", "output"]
    assert len(schema["properties"]["stages"]["items"]["anyOf"]) == len(registry()) + 1  # and the user's own
