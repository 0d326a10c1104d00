"""dataselect compare: draws, measures, the report on made text where the answer is known, and bad input."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dataselect.compare.compare import compare
from dataselect.compare.corpus import Corpus
from dataselect.compare.draws import cut, length_groups, matched, quotas
from dataselect.compare.measures import SPACES, Space, divergence
from dataselect.compare.spec import CompareSpec
from dataselect.core.errors import DataselectError, RecipeError
from dataselect.kernels.arrow import text_buffers
from dataselect.kernels.language_model import token_lists
from dataselect.kernels.ngrams import count_ngrams
from dataselect.report import compareview


def topic(name, rng, n_docs):
    """Documents of a topic: half of the words are its own."""
    share = 1 / np.arange(1, 61)
    words = [f"{name}{i}" for i in range(30)] + [f"common{i}" for i in range(30)]
    order = np.argsort([i % 30 for i in range(60)], kind="stable")
    return [
        " ".join(rng.choice(np.array(words)[order], rng.integers(10, 80), p=share / share.sum()))
        for _ in range(n_docs)
    ]


def write(path, texts, **columns):
    rows = [{"text": text, **{k: c[i] for k, c in columns.items()}} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """raw: 600 of topic b, 200 of a; target: a; selections: those of a, and 200 at random."""
    folder = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(5)
    texts = topic("b", rng, 600) + topic("a", rng, 200)
    ids = [f"doc-{i}" for i in range(800)]
    kinds = ["web"] * 300 + ["news"] * 300 + ["news"] * 150 + ["web"] * 50
    mixed = rng.permutation(800)
    of_a = [i for i in mixed if i >= 600]
    chance = rng.permutation(800)[:220]
    for name, rows in (("raw", mixed), ("a", of_a), ("chance", chance)):
        write(
            folder / f"{name}.jsonl",
            [texts[i] for i in rows],
            id=[ids[i] for i in rows],
            kind=[kinds[i] for i in rows],
        )
    write(folder / "target.jsonl", topic("a", rng, 120))
    return folder


def spec(folder, *selections, **options):
    base = {"target": (str(folder / "target.jsonl"),), "raw": (str(folder / "raw.jsonl"),), "id": "id"}
    base["selections"] = tuple(f"{name}={folder / name}.jsonl" for name in selections)
    return CompareSpec(**base | options)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def report(folder):
    return compare(spec(folder, "a", "chance", source="kind"))


def selection(report, name):
    return next(s for s in report["selections"] if s["name"] == name)


def test_the_selection_of_the_targets_topic_beats_every_draw_and_chance_does_not(report):
    a, chance = selection(report, "a"), selection(report, "chance")
    for measure, sign in (("kl_reduction", 1), ("kl_reduction_2", 1), ("bits_per_byte", -1)):
        for control in a["controls"].values():
            assert sign * control[measure]["z"] > 5, measure
            assert all(sign * a["measures"][measure] > sign * value for value in control[measure]["values"])
        assert abs(chance["controls"]["random"][measure]["z"]) < 4
    assert set(a["controls"]) == {"random", "same lengths", "same sources"}
    lines = compareview.render(report).splitlines()
    assert next(line for line in lines if line.startswith("a ")).endswith("5 5 5")
    assert not next(line for line in lines if line.startswith("chance ")).endswith("5 5 5")


def test_all_are_cut_to_the_smallest(report, folder):
    n_tokens = sum(len(row["text"].split()) for row in rows_of(folder / "a.jsonl"))
    assert report["tokens"] == n_tokens
    assert report["tokens_set_by"] == "a"
    assert selection(report, "chance")["tokens"] > n_tokens
    assert selection(report, "a")["measures"]["docs"] == 200
    assert compare(spec(folder, "a", max_tokens=500))["tokens"] == 500


def test_counts_shares_and_overlap_are_those_of_the_files(report, folder):
    kinds = [row["kind"] for row in rows_of(folder / "a.jsonl")]
    words = [len(row["text"].split()) for row in rows_of(folder / "a.jsonl")]
    web = sum(n for n, kind in zip(words, kinds, strict=True) if kind == "web")
    assert selection(report, "a")["sources"]["web"] == pytest.approx(web / sum(words))
    ids = {name: {row["id"] for row in rows_of(folder / f"{name}.jsonl")} for name in ("a", "chance")}
    jaccard = len(ids["a"] & ids["chance"]) / len(ids["a"] | ids["chance"])
    assert report["overlap"]["a"] == {"a": 1.0, "chance": pytest.approx(jaccard)}
    assert report["raw"]["docs"] == 800
    assert selection(report, "a")["not_in_raw"] == 0


def test_order_of_rows_and_shards_of_raw_does_not_matter(folder, tmp_path):
    lines = (folder / "raw.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "z.jsonl").write_text("".join(lines[:300]))
    (tmp_path / "b.jsonl").write_text("".join(reversed(lines[300:])))
    one = compare(spec(folder, "chance", seeds=2))
    other = compare(spec(folder, "chance", seeds=2, raw=(str(tmp_path / "*.jsonl"),)))
    del one["raw"]["sources"], other["raw"]["sources"], one["selections"][0]["sources"]
    del other["selections"][0]["sources"]
    assert one == other


def test_raw_itself_gains_nothing(folder):
    report = compare(spec(folder, "raw", seeds=2))
    measures = report["selections"][0]["measures"]
    assert measures["kl_reduction"] == pytest.approx(0, abs=1e-12)
    assert measures["kl_reduction_2"] == pytest.approx(0, abs=1e-12)


# Draws ----------------------------------------------------------------------------------------------


def corpus_of(n_tokens):
    n_tokens = np.array(n_tokens)
    keys = np.random.default_rng(3).integers(0, 2**63, (len(n_tokens), 2)).astype(np.uint64)
    return Corpus(None, keys, keys[:, 0], n_tokens, n_tokens, np.zeros(len(n_tokens), np.int32), {}, 0)


def test_a_cut_fills_the_budget_exactly_and_a_larger_one_holds_it():
    corpus = corpus_of([5, 0, 7, 9, 30, 2])
    small, large = cut(corpus, 10), cut(corpus, 40)
    assert (small.n_tokens, large.n_tokens) == (10, 40)
    assert list(large.docs[: len(small.docs)]) == list(small.docs)
    assert 1 not in cut(corpus, 53).docs
    assert corpus.n_tokens[small.docs[:-1]].sum() < 10 <= corpus.n_tokens[small.docs].sum()


def test_seeds_give_other_draws_and_every_document_as_often():
    corpus = corpus_of([10] * 50)
    drawn = np.zeros(50)
    for seed in range(400):
        drawn[matched(corpus, 100, seed, "test").docs] += 1
    assert drawn.sum() == 4000
    assert np.abs(drawn / 400 - 0.2).max() < 4.5 * math.sqrt(0.2 * 0.8 / 400)


def test_matched_draws_have_the_quotas_of_their_groups():
    rng = np.random.default_rng(1)
    corpus = corpus_of(rng.integers(5, 50, 3000))
    group = rng.integers(0, 4, 3000)
    draw = matched(corpus, 20_000, 0, "test", group, np.array([1.0, 0.0, 3.0, 4.0]))
    share = quotas(group[draw.docs], corpus.n_tokens[draw.docs], 4) / 20_000
    np.testing.assert_allclose(share, [1 / 8, 0, 3 / 8, 4 / 8], atol=0.004)


def test_where_a_group_is_used_up_the_others_go_on():
    corpus = corpus_of([10] * 100)
    group = np.array([0] * 5 + [1] * 95)
    draw = matched(corpus, 500, 0, "test", group, np.array([1.0, 1.0]))
    assert draw.n_tokens == 500
    assert set(range(5)) <= set(draw.docs.tolist())


def test_length_matched_draws_have_the_lengths():
    rng = np.random.default_rng(2)
    corpus = corpus_of(np.exp(rng.normal(4, 1, 20_000)).astype(int))
    wanted = np.exp(rng.normal(5, 0.3, 300)).astype(int)
    groups, own = length_groups(corpus.n_tokens), length_groups(wanted)
    n_groups = 1 + max(groups.max(), own.max())
    draw = matched(corpus, int(wanted.sum()), 0, "test", groups, quotas(own, wanted, n_groups))
    found = corpus.n_tokens[draw.docs]
    np.testing.assert_allclose(
        np.quantile(found, [0.1, 0.5, 0.9]), np.quantile(wanted, [0.1, 0.5, 0.9]), rtol=0.1
    )
    assert abs(len(found) - 300) < 20


# Measures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_space_with_scramble_1_is_that_of_the_importance_stage(order):
    buffers = text_buffers(pa.array(["One two, three.", "", "two", "four five six seven two"]))
    expected = np.zeros(500, np.int64)
    count_ngrams(*buffers, order, 500, expected)
    np.testing.assert_array_equal(Space(order, 500).counts(token_lists(*buffers)), expected)
    other = Space(order, 500, SPACES["kl_reduction_2"].scramble).counts(token_lists(*buffers))
    assert other.sum() == expected.sum()
    assert (other != expected).any()


def test_divergence_by_hand():
    p, q = np.array([1, 3, 0]), np.array([2, 1, 1])
    assert divergence(p, q) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(3), abs=1e-6)
    assert divergence(p, p) == 0


# The command line -----------------------------------------------------------------------------------


def test_the_command_prints_a_table_json_and_a_picture(folder, tmp_path, cli):
    options = [f"a={folder}/a.jsonl", f"{folder}/chance.jsonl", "--raw", folder / "raw.jsonl", "--seeds", 2]
    options += ["--target", folder / "target.jsonl", "--source-column", "kind", "--plot", tmp_path / "p.svg"]
    shown = cli("compare", *options, "--quiet")
    assert shown.code == 0
    assert "KL reduction" in shown.out
    assert "same sources" in shown.out
    picture = ET.parse(tmp_path / "p.svg").getroot()
    circles = [e for e in picture.iter() if e.tag.endswith("circle")]
    assert len(circles) == 3 * 2 * (1 + 3 * 2)
    assert all(0 < float(c.get("cx")) < float(picture.get("width")) for c in circles)
    report = json.loads(cli("compare", *options, "--json").out)
    assert [s["name"] for s in report["selections"]] == ["a", "chance"]


def test_recipes_and_output_folders_are_selections(folder, tmp_path, cli):
    (tmp_path / "pick.yaml").write_text(
        f"input: {{shards: {folder}/raw.jsonl, id: id}}\n"
        f"stages: [{{use: select, method: uniform, keep: {{docs: 100}}}}]\n"
        "output: {folder: out}\n"
    )
    target = ["--target", folder / "target.jsonl", "--seeds", 2, "--quiet"]
    early = cli("compare", tmp_path / "pick.yaml", *target)
    assert early.code == 2
    assert "run it first" in early.err
    assert cli("run", tmp_path / "pick.yaml", "--quiet", "--workers", 1).code == 0
    options = [tmp_path / "pick.yaml", f"again={tmp_path}/out/current", *target, "--json"]
    report = json.loads(cli("compare", *options).out)
    assert [s["docs"] for s in report["selections"]] == [100, 100]
    assert report["selections"][0]["measures"] == report["selections"][1]["measures"]
    assert any("hold the same documents" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"raw": ()}, "--raw: name the shards"),
        ({"raw": ("/nowhere/*.jsonl",)}, "--raw: no file matches"),
        ({"seeds": 1}, "one draw has no spread"),
        ({"order": 9}, "--order 9"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"id": "idd"}, "--id: no column 'idd'.*did you mean 'id'"),
        ({"text": "txt"}, "--text: no column 'txt'"),
        ({"source": "kin"}, "--source-column: no column 'kin'.*did you mean 'kind'"),
        ({"selections": ("x=a.jsonl", "x=b.jsonl")}, "two selections are named 'x'"),
        ({"selections": ("/nowhere",)}, "nothing is published in /nowhere"),
        ({"selections": ()}, "at least one selection"),
    ],
)
def test_mistakes_are_one_sentence(folder, options, message):
    with pytest.raises(RecipeError, match=message):
        compare(spec(folder, "a", **options))


@pytest.mark.parametrize("which", ["selection", "target", "raw"])
def test_what_has_no_words_is_refused(folder, tmp_path, which):
    write(tmp_path / "empty.jsonl", ["", "  "], id=["x", "y"])
    empty = str(tmp_path / "empty.jsonl")
    options = {} if which == "selection" else {which: (empty,)}
    whole = spec(folder, "a", **options)
    if which == "selection":
        whole = replace(whole, selections=(f"none={empty}",))
    with pytest.raises(DataselectError, match="no words"):
        compare(whole)


def warnings_for(folder, tmp_path, target, selections=("a",)):
    write(tmp_path / "t.jsonl", target)
    return " ".join(
        compare(spec(folder, *selections, seeds=2, target=(str(tmp_path / "t.jsonl"),)))["warnings"]
    )


def test_a_tiny_a_foreign_and_a_leaked_target_get_a_warning(folder, tmp_path):
    tiny = topic("a", np.random.default_rng(0), 3)
    assert "3 documents" in warnings_for(folder, tmp_path, tiny)
    assert "nowhere in raw" not in warnings_for(folder, tmp_path, tiny)
    foreign = warnings_for(folder, tmp_path, ["слова другого языка " * 9] * 120)
    assert "100% of the target's words are nowhere in raw" in foreign
    leaked = [row["text"] for row in rows_of(folder / "a.jsonl")[:5]]
    assert "5 target documents are in 'a'" in warnings_for(folder, tmp_path, leaked)


def test_a_selection_from_elsewhere_gets_a_warning(folder, tmp_path):
    rows = rows_of(folder / "a.jsonl")
    write(tmp_path / "other.jsonl", [row["text"] for row in rows], id=[f"new-{i}" for i in range(200)])
    whole = spec(folder, "a", seeds=2)
    elsewhere = replace(whole, selections=(str(tmp_path / "other.jsonl"),))
    assert any("200 of 200 documents of 'other' are not in raw" in w for w in compare(elsewhere)["warnings"])


def test_few_tokens_and_bad_rows_get_a_warning(folder, tmp_path):
    (tmp_path / "few.jsonl").write_text('{"text": "a1 a2 common3", "id": "n"}\n{"id": "without"}\n')
    few = replace(spec(folder, seeds=2), selections=(str(tmp_path / "few.jsonl"),))
    warnings = " ".join(compare(few)["warnings"])
    assert "only 3 tokens of each" in warnings
    assert "few: 1 rows could not be read" in warnings


def test_a_picture_that_cannot_be_written_is_found_before_the_work(folder, tmp_path, cli):
    options = [folder / "a.jsonl", "--raw", "/nowhere/*", "--target", folder / "target.jsonl", "--plot"]
    assert "ends in .svg" in cli("compare", *options, "p.png").err
    assert "there is no folder" in cli("compare", *options, tmp_path / "none" / "p.svg").err
