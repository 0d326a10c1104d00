"""Near-duplicates: what is found, what is verified, who survives."""

from __future__ import annotations

import contextlib
import csv
import errno
import itertools
import json
import os
import re
from collections import defaultdict
from pathlib import Path

import corpora
import numpy as np
import pyarrow as pa
import pytest
import yaml
from scipy import stats

import dataselect
from dataselect.core.errors import DataselectError
from dataselect.core.lsh import candidate_probability, high_recall_bands
from dataselect.engine.columns import KeySink, distinct, members_ascending
from dataselect.engine.docs import packed
from dataselect.engine.group import key_range
from dataselect.engine.survivors import Component, Greedy, Index
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.store import LocalStore
from dataselect.report import funnel
from dataselect.stages.base import DedupKeys, Texts
from dataselect.stages.minhash_dedup import MinhashDedup

CORPUS = Path(os.environ.get("DATASELECT_CORPUS", Path(__file__).parents[2] / "shared" / "corpus" / "dev"))


@pytest.fixture
def run(tmp_path, serial):
    """Run a dedup over {id: text}, in a folder of its own; gives the decisions by id."""
    count = itertools.count()

    def fresh(texts, n_shards=3, order=None, before=(), sets=(), **params):
        folder = tmp_path / str(next(count))
        rows = [json.dumps({"id": i, "text": texts[i]}) + "\n" for i in order or texts]
        (folder / "in").mkdir(parents=True)
        for k in range(n_shards):
            part = rows[k * len(rows) // n_shards : (k + 1) * len(rows) // n_shards]
            (folder / "in" / f"{k}.jsonl").write_text("".join(part))
        recipe = corpora.write_recipe(
            folder, [*before, {"use": "minhash_dedup", **params}], input={"shards": ["in/*"], "id": "id"}
        )
        report = dataselect.run(recipe, sets=sets)
        return report, by_id(folder / "out")

    return fresh


def by_id(out):
    """Decisions by id, with the id of the document that each one duplicates."""
    decisions = corpora.decisions(out)
    ids = {(row["shard"], row["part"], row["row"]): row["id"] for row in decisions}
    places = ("duplicate_of_shard", "duplicate_of_part", "duplicate_of_row")
    return {row["id"]: row | {"duplicate_of": ids.get(tuple(row[p] for p in places))} for row in decisions}


def kept(decisions):
    return [i for i, row in decisions.items() if row["copies"]]


def made_up(n_pairs):
    """Documents of random words, half of them with a near copy; J evenly from 0.5 to 1."""
    texts = {}
    for i in range(n_pairs):
        first, second = corpora.pair_of_similarity(0.5 + 0.5 * i / n_pairs, "made up", i)
        texts |= {f"{i}a": first, f"{i}b": second}
    return dict(sorted(texts.items(), key=lambda item: corpora.number(item[0])))


def template(n_docs=120, n_words=120, most_edits=12):
    """Versions of one page: every two of them are candidates, and near the threshold."""
    base = corpora.words(n_words, "template")
    texts = {}
    for i in range(n_docs):
        version = list(base)
        for k in range(1 + corpora.number("edits", i) % most_edits):
            version[corpora.number("place", i, k) % n_words] = f"edit{i}x{k}"
        texts[f"t{i}"] = " ".join(version)
    return texts


def assert_verified(texts, decisions, threshold):
    for i, row in decisions.items():
        if not row["copies"]:
            other = row["duplicate_of"]
            assert decisions[other]["copies"]
            exact = corpora.jaccard(texts[i], texts[other])
            assert exact >= threshold
            assert row["similarity"] == pytest.approx(exact, abs=0.15)


# What is found


def test_bands_find_985_of_1000_pairs_at_the_threshold_with_the_fewest_candidates():
    assert high_recall_bands(0.8, 128) == (18, 7)
    for threshold, num_perm in [(0.3, 64), (0.5, 128), (0.7, 128), (0.75, 112), (0.9, 256), (1.0, 128)]:
        bands, rows = high_recall_bands(threshold, num_perm)
        assert bands * rows <= num_perm
        assert candidate_probability(threshold, bands, rows) >= 0.985
        assert bands == 1 or candidate_probability(threshold, bands - 1, rows) < 0.985
        assert rows == num_perm or candidate_probability(threshold, num_perm // (rows + 1), rows + 1) < 0.985
    with pytest.raises(ValueError, match=r"num_perm: 2 is too few .* set it to 3 or more"):
        high_recall_bands(0.8, 2)


@pytest.mark.parametrize("bands", ["auto", "datasketch", (16, 8)])
def test_pairs_are_candidates_as_often_as_the_s_curve_says(bands):
    stage = MinhashDedup(bands=bands)
    for similarity in np.arange(50, 100, 5) / 100:
        pairs = [corpora.pair_of_similarity(similarity, "curve", i, n_shingles=57) for i in range(2000)]
        exact = corpora.jaccard(*pairs[0])
        sides = [
            stage.dedup_keys(Texts(pa.array(side, pa.large_string()))) for side in zip(*pairs, strict=True)
        ]
        left, right = (keys.keys.reshape(2000, -1) for keys in sides)
        found = int((left == right).any(axis=1).sum())
        low, high = stats.binom.interval(0.999, 2000, candidate_probability(exact, *stage.bands_rows()))
        assert low <= found <= high


def test_the_bar_on_a_made_up_corpus(run):
    texts = made_up(900)
    _, decisions = run(texts)
    high = {i for i in range(900) if corpora.jaccard(texts[f"{i}a"], texts[f"{i}b"]) >= 0.8}
    dropped = [int(i[:-1]) for i, row in decisions.items() if not row["copies"]]
    assert len(high) > 350
    assert len(dropped) >= 0.995 * len(high)
    assert set(dropped) <= high
    assert_verified(texts, decisions, 0.8)


@pytest.mark.skipif(not (CORPUS / "neardup_truth.csv").is_file(), reason=f"no corpus in {CORPUS}")
def test_the_bar_on_real_text_with_known_truth(tmp_path, serial):
    """Recall and precision >= 0.995 at J >= 0.8, and nothing lost without a kept partner."""
    shards = {"shards": [str(CORPUS / "neardup_docs.jsonl.zst")], "id": "id"}
    dataselect.run(corpora.write_recipe(tmp_path, [{"use": "minhash_dedup"}], input=shards))
    decisions = by_id(tmp_path / "out")
    partners = defaultdict(set)
    with (CORPUS / "neardup_truth.csv").open() as file:
        pairs = [(r["id_a"], r["id_b"]) for r in csv.DictReader(file) if float(r["jaccard"]) >= 0.8]
    for a, b in pairs:
        partners[a].add(b)
        partners[b].add(a)
    stay = set(kept(decisions))
    dropped = set(decisions) - stay
    assert sum(a in stay and b in stay for a, b in pairs) <= 0.005 * len(pairs)
    assert sum(bool(partners[i]) for i in dropped) >= 0.995 * len(dropped)
    assert all(partners[i] & stay for i in dropped)


def test_texts_of_few_words(run):
    texts = {
        "none": "", "dots": " ... ", "dots too": " ... ", "one": "word", "one too": "Word!",
        "two": "word word", "four": "a b c d", "four too": "A, b, c, D.", "five": "a b c d e",
        "four others": "a b c x",
    }  # fmt: skip
    _, decisions = run(texts)
    assert {i: row["duplicate_of"] for i, row in decisions.items() if not row["copies"]} == {
        "one too": "one",
        "four too": "four",
    }


@pytest.mark.parametrize("verify", ["auto", "exact", "estimate", "none"])
def test_same_texts_always_meet_and_different_ones_never(run, verify):
    texts = {f"{i}{k}": " ".join(corpora.words(30, i)) for i in range(40) for k in range(3)}
    report, decisions = run(texts, verify=verify, **{"as": "size"})
    assert kept(decisions) == [f"{i}0" for i in range(40)]
    assert {row["similarity"] for row in decisions.values()} == {None, 1.0}
    assert {row["size"] for row in decisions.values()} == {3}
    assert report["dedups"][0]["n_candidates"] == 0  # copies need no comparison


@pytest.mark.parametrize(
    "text",
    [
        "昔々ある所にお爺さんとお婆さんが住んでいました。お爺さんは山へ柴刈りに、お婆さんは川へ洗濯に行きました。",
        "子曰學而時習之不亦說乎有朋自遠方來不亦樂乎人不知而不慍不亦君子乎",
        "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
        "មនុស្សទាំងអស់កើតមកមានសេរីភាពនិងសមភាពក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ",
        "ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີສິດທິເສລີພາບແລະຄວາມສະເໝີພາບເທົ່າທຽມກັນ",
        "လူတိုင်းသည်တူညီလွတ်လပ်သောဂုဏ်သိက္ခာဖြင့်လည်းကောင်း၊တူညီလွတ်လပ်သောအခွင့်အရေးများဖြင့်လည်းကောင်း",
    ],
)
def test_scripts_without_spaces_are_compared_by_characters(run, text):
    pages = {"one": text * 3 + " Wikipedia", "other": text[2:] + text * 2 + " Wikipedia", "else": text[::-1]}
    assert kept(run(pages, tokens="auto")[1]) == kept(run(pages, tokens="chars")[1]) == ["one", "else"]


def test_tokens_are_as_the_recipe_says(run):
    chinese = {"one": "子曰學而時習之不亦說乎有朋自遠方來" * 2, "other": "學而時習之不亦說乎有朋自遠方來" * 2}
    assert kept(run(chinese, threshold=0.6, tokens="auto", char_ngram=2)[1]) == ["one"]
    assert kept(run(chinese, threshold=0.6)[1]) == ["one", "other"]
    korean = {"one": "모든 인간은 태어날 때부터 자유", "other": "모든 인간은 태어날 때부터 자유 그"}
    assert kept(run(korean, tokens="auto", char_ngram=1)[1]) == ["one", "other"]
    assert kept(run(korean, tokens="chars", char_ngram=1)[1]) == ["one"]


def test_the_settings_that_the_readme_gives_for_other_tools():
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    found = re.findall(r"^\| (\w[\w-]*) \| `\{use: minhash_dedup, (.*)\}` \|", text, re.MULTILINE)
    stages = {name: MinhashDedup.model_validate(yaml.safe_load(f"{{{params}}}")) for name, params in found}
    bands = {name: stage.bands_rows() for name, stage in stages.items()}
    assert bands == {"text-dedup": (24, 10), "datatrove": (14, 8), "NeMo": (20, 13)}


# Verification


def test_every_dropped_document_has_a_kept_one_that_is_as_similar(run):
    texts = made_up(80) | template()
    for threshold in (0.7, 0.8, 0.9):
        _, decisions = run(texts, threshold=threshold)
        assert_verified(texts, decisions, threshold)


def test_exact_verification_of_all_pairs_decides_as_auto_does(run):
    texts = made_up(80)
    for params in ({}, {"threshold": 0.7}, {"threshold": 1.0}):
        _, auto = run(texts, **params)
        _, exact = run(texts, verify="exact", **params)
        assert kept(auto) == kept(exact)
        for i, row in exact.items():
            if not row["copies"]:
                found = corpora.jaccard(texts[i], texts[row["duplicate_of"]])
                assert row["similarity"] == pytest.approx(found, abs=1e-6)


def test_without_verification_candidates_below_the_threshold_go_too(run):
    texts = made_up(200)
    n_kept = {v: len(kept(run(texts, verify=v)[1])) for v in ("auto", "estimate", "none")}
    assert n_kept["none"] < n_kept["auto"] - 10
    assert abs(n_kept["estimate"] - n_kept["auto"]) < 20


# Who survives


def random_graph(seed):
    """(number of documents, edges as pairs), some of them in no edge."""
    rng = np.random.default_rng(seed)
    n_docs = int(rng.integers(1, 30))
    edges = rng.integers(0, n_docs, (int(rng.integers(0, 2 * n_docs)), 2))
    edges = edges[edges[:, 0] != edges[:, 1]]
    return n_docs, np.unique(packed(edges[:, 0], edges[:, 1]))


def survivors(rule, pairs):
    rule.add(pairs, np.ones(len(pairs), np.float32), np.zeros(len(pairs), np.uint8))
    return set(np.flatnonzero(rule.kept()).tolist())


def test_survivors_by_component_are_among_those_by_index_and_these_among_the_greedy_ones():
    for seed in range(500):
        n_docs, pairs = random_graph(seed)
        component, index, greedy = (survivors(r(n_docs), pairs) for r in (Component, Index, Greedy))
        assert component <= index <= greedy
        split = survivors(Component(n_docs, split_over=4), pairs)
        assert component <= split <= greedy
        assert survivors(Component(n_docs, split_over=1), pairs) == greedy
        neighbours = defaultdict(set)
        for pair in pairs.tolist():
            neighbours[pair >> 32].add(pair & 0xFFFFFFFF)
        expected = set()
        for doc in range(n_docs):
            if not neighbours[doc] & expected:
                expected.add(doc)
        assert greedy == expected
        assert index == {doc for doc in range(n_docs) if not neighbours[doc]}


def test_survivors_of_a_run_by_component_are_among_those_by_index_and_these_among_the_greedy_ones(run):
    texts = chain() | template()
    found = [set(kept(run(texts, survivors=rule)[1])) for rule in ("component", "index", "greedy")]
    assert found[0] < found[1] < found[2] < set(texts)


def chain():
    """a - b - c with J(a, b) and J(b, c) = 0.81 and J(a, c) = 0.67."""
    all_words = corpora.words(124, "chain")
    return {name: " ".join(all_words[k : k + 104]) for name, k in (("a", 0), ("b", 10), ("c", 20))}


@pytest.mark.parametrize(
    "survivors, expected",
    [("greedy", {"b": "a"}), ("index", {"b": "a", "c": "b"}), ("component", {"b": "a", "c": "a"})],
)
def test_a_chain(run, survivors, expected):
    _, decisions = run(chain(), survivors=survivors)
    assert {i: row["duplicate_of"] for i, row in decisions.items() if not row["copies"]} == expected
    assert decisions["a"]["cluster_size"] == 1 + len(expected)
    if survivors == "component":  # a and c were not found similar
        assert decisions["c"]["similarity"] is None


def test_the_report_names_the_largest_clusters(run):
    texts = {f"{i}{k}": " ".join(corpora.words(30, i)) for i in range(12) for k in range(i + 1)}
    report, _ = run(texts)
    clusters = report["dedups"][0]["clusters"]
    assert (clusters["n"], clusters["sizes"]) == (11, {"<= 2": 1, "<= 4": 2, "<= 8": 4, "<= 16": 4})
    assert [cluster["size"] for cluster in clusters["largest"]] == list(range(12, 2, -1))
    largest = clusters["largest"][0]
    assert (largest["kept"]["id"], [row["id"] for row in largest["dropped"]]) == (
        "110",
        ["111", "112", "113"],
    )
    shown = funnel.render(report)
    assert (
        "  minhash_dedup: 11 clusters; the largest:\n    12 documents: 110 stays for 111, 112, ...\n    11 "
        in shown
    )


def test_copies_of_a_document_share_its_fate(run):
    texts = chain() | {"b again": chain()["b"], "c again": chain()["c"]}
    _, decisions = run(texts)
    found = {i: (row["duplicate_of"], row["similarity"]) for i, row in decisions.items() if not row["copies"]}
    assert found == {"b": ("a", 0.818182), "b again": ("a", 0.818182), "c again": ("c", 1.0)}
    _, decisions = run(texts, order=["c", "b again", "b", "c again", "a"])
    assert kept(decisions) == ["c", "a"]


def test_a_cluster_over_the_limit_stops_the_run_or_is_split(run):
    with pytest.raises(DataselectError, match=r"a cluster has 3 documents, more than max_cluster: 2; "):
        run(chain(), survivors="component", max_cluster=2)
    limits = {"survivors": "component", "max_cluster": 2, "larger_clusters": "split"}
    assert kept(run(chain(), **limits)[1]) == ["a", "c"]
    assert kept(run(chain(), survivors="component", max_cluster=3)[1]) == ["a"]
    with pytest.raises(
        DataselectError, match=r"has 4 documents, .*: 0.jsonl row 0, 1.jsonl row 0, 2.jsonl row 0"
    ):
        run({f"{k}": "one text, four times" for k in range(4)}, max_cluster=3)


def test_which_copy_is_kept(run, tmp_path):
    first, second = corpora.pair_of_similarity(0.9, "which")
    texts = {"short": first, "long": second + " and more", "alone": " ".join(corpora.words(50, "alone"))}
    assert kept(run(texts)[1]) == ["short", "alone"]
    assert kept(run(texts, keep="longest")[1]) == ["long", "alone"]
    assert kept(run(texts, keep={"source": ["1.*", "*"]})[1]) == ["long", "alone"]
    length = {"use": "length_filter", "min_chars": 0}
    assert kept(run(texts, before=[length], keep={"best": "n_chars"})[1]) == ["long", "alone"]
    code, _, err = corpora.cli(
        "plan", corpora.write_recipe(tmp_path, [{"use": "exact_dedup", "keep": {"lates": "date"}}])
    )
    assert (code, "keep.lates: unknown key 'lates'; did you mean 'latest'?" in err) == (2, True)


def test_the_size_of_a_cluster_is_a_column_for_later_stages(tmp_path, serial):
    texts = made_up(40) | template(30)
    (tmp_path / "in").mkdir()
    rows = [json.dumps({"id": i, "text": text}) + "\n" for i, text in texts.items()]
    (tmp_path / "in" / "a.jsonl").write_text("".join(rows))
    stages = [
        {"use": "exact_dedup"},
        {"use": "minhash_dedup", "as": "n_versions"},
        {"use": "select", "by": "n_versions", "keep": {"docs": 3}},
    ]
    output = {"add": ["n_versions"]}
    dataselect.run(corpora.write_recipe(tmp_path, stages, input={"shards": ["in/*"]}, output=output))
    decisions = by_id(tmp_path / "out")
    counts = defaultdict(int)
    for i, row in decisions.items():
        counts[row["duplicate_of"] or i] += 1
    survivors = [i for i, row in decisions.items() if row["stage"] != "minhash_dedup"]
    assert {i: decisions[i]["n_versions"] for i in survivors} == {i: counts[i] for i in survivors}
    assert sorted(counts.values())[-3:] == sorted(decisions[i]["n_versions"] for i in kept(decisions))
    lines = (corpora.live(tmp_path / "out") / "shards" / "a.jsonl").read_text().splitlines()
    assert {row["id"]: row["n_versions"] for row in map(json.loads, lines)} == {
        i: counts[i] for i in kept(decisions)
    }


# Sameness


@pytest.mark.parametrize("survivors", ["greedy", "index", "component"])
def test_a_dedup_of_its_own_output_drops_nothing(run, survivors):
    texts = made_up(60) | template()
    _, decisions = run(texts, survivors=survivors)
    rest = {i: texts[i] for i in kept(decisions)}
    assert len(rest) < len(texts) - 35
    assert kept(run(rest, survivors=survivors)[1]) == list(rest)


def test_clusters_do_not_depend_on_the_order_of_documents(run):
    texts = made_up(60) | chain()
    _, decisions = run(texts, survivors="component")
    others = list(texts)[::-1]
    _, turned = run(texts, order=others, n_shards=2, survivors="component")

    def clusters(found):
        groups = defaultdict(set)
        for i, row in found.items():
            groups[row["duplicate_of"] or i].add(i)
        return {frozenset(group) for group in groups.values()}

    assert clusters(decisions) == clusters(turned)
    assert kept(decisions) != kept(turned)


def test_survivors_do_not_depend_on_shards_or_pieces(run):
    texts = made_up(40) | template(60)
    _, one = run(texts, n_shards=1)
    _, seven = run(texts, n_shards=7, sets=["input.piece_bytes=16384", "input.batch_rows=5"])
    same = ("id", "stage", "duplicate_of", "similarity", "cluster_size")
    found, expected = ([[row[c] for c in same] for row in decisions.values()] for decisions in (seven, one))
    assert found == expected


@pytest.mark.parametrize("survivors", ["greedy", "index", "component"])
def test_survivors_do_not_depend_on_memory(run, monkeypatch, survivors):
    """8 KiB: partitions of 128 keys, and 85 pairs a task."""
    texts = made_up(30) | template(40)
    texts |= {f"{i} again": texts[i] for i in list(texts)[::3]}
    exact = [{"use": "exact_dedup"}]
    much, expected = run(texts, before=exact, survivors=survivors)
    for name in ("group._SLICE", "verify.CHUNK", "join.CHUNK"):
        monkeypatch.setattr(f"dataselect.engine.{name}", 5)
    little, decisions = run(texts, before=exact, survivors=survivors, sets=["memory=8KiB"])
    assert decisions == expected
    assert little["dedups"] == much["dedups"]
    assert little["tasks"]["run"] > much["tasks"]["run"] + 30


@pytest.mark.parametrize(
    "n_docs, n_buckets, n_texts", [(0, 1, 1), (1, 1, 1), (500, 9, 4), (500, 400, 1 << 62)]
)
def test_members_are_ordered_by_bucket_text_and_rank(n_docs, n_buckets, n_texts):
    rng = np.random.default_rng(n_docs)
    bucket = np.sort(rng.integers(0, n_buckets, n_docs, np.uint32))
    texts = rng.integers(0, n_texts, n_docs, np.uint64)
    texts[::3] = texts[:1] ^ np.uint64(1) if n_docs else 0  # which differ in the lowest bit alone
    texts[1::3] = texts[:1]
    ranks = rng.permutation(n_docs).astype(np.uint32)
    expected = np.lexsort((ranks, texts, bucket))
    assert members_ascending(bucket, texts, ranks).tolist() == expected.tolist()
    assert distinct(texts.copy()).tolist() == sorted(set(texts.tolist()))


def test_partitions_are_all_keys_in_order(tmp_path):
    store, rng = LocalStore(tmp_path), np.random.default_rng(0)
    keys = np.concatenate([rng.integers(0, 1 << 64, 5000, np.uint64), np.uint64([0, (1 << 64) - 1])])
    sink = KeySink()
    sink.add(np.arange(len(keys)), DedupKeys(np.arange(len(keys)), keys))
    with store.commit("keys") as file:
        writer = BundleWriter(file)
        writer.finish(sink.write(writer, len(keys)))
    bundle = Bundle(store, "keys")
    for n_bits in (0, 1, 9, 10, 11, 12):
        ranges = [key_range(bundle, number, 1 << n_bits) for number in range(1 << n_bits)]
        number_of = np.repeat(np.arange(1 << n_bits), [stop - start for start, stop in ranges])
        assert ranges[0][0] == 0
        assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
        assert number_of.tolist() == [key << n_bits >> 64 for key in bundle.array("keys").tolist()]


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl.xz", "a.parquet", "a.arrow"])
def test_shards_of_other_formats_give_the_same_survivors(run, tmp_path, name):
    texts = made_up(40) | template(60)
    _, decisions = run(texts, n_shards=1)
    corpora.write_shard(tmp_path / "in" / name, [corpora.Doc(i, text) for i, text in texts.items()])
    given = {"shards": ["in/*"], "id": "id", "piece_bytes": 8192}
    dataselect.run(corpora.write_recipe(tmp_path, [{"use": "minhash_dedup"}], input=given))
    found = by_id(tmp_path / "out")
    assert [(i, row["duplicate_of"], row["similarity"]) for i, row in found.items()] == [
        (i, row["duplicate_of"], row["similarity"]) for i, row in decisions.items()
    ]


def test_only_shards_with_undecided_pairs_are_read_again_and_a_second_run_reads_none(tmp_path, serial):
    near, far = made_up(20), {f"far{i}": " ".join(corpora.words(60, "far", i)) for i in range(20)}
    for name, texts in (("near", near), ("far", far)):
        docs = [corpora.Doc(i, text) for i, text in texts.items()]
        corpora.write_shard(tmp_path / "in" / f"{name}.jsonl", docs)
    recipe = corpora.write_recipe(
        tmp_path, [{"use": "minhash_dedup"}], input={"shards": ["in/*"], "piece_bytes": 8192}
    )
    assert dataselect.plan(recipe)["reads"][1]["stages"] == ["0:minhash_dedup (exact)"]
    dataselect.run(recipe)
    tasks = [d["task"] for d in dataselect.plan(recipe)["decisions"]]
    read_again = {task.split()[1] for task in tasks if task.startswith("shingles")}
    assert read_again
    assert all("near" in name for name in read_again)
    report = dataselect.run(recipe, sets=["output.format=jsonl.gz"])
    assert report["tasks"]["run"] == sum(task.startswith("write") for task in tasks)
    report = dataselect.run(recipe, sets=["stages.0.keep=longest"])
    assert not any(p["run"] for p in report["phases"] if p["phase"] == "read 1")


# Bad input


@pytest.mark.slow
def test_a_document_of_60_mb_is_one_like_any_other(run):
    """At most 64 MiB long by default; its shingles are compared exactly, one by one."""
    long = " ".join(f"{i:08x}" for i in range(60_000_000 // 9))
    texts = {"long": long, "short": "a b c", "like it": long.replace("0000", "000_", 1)}
    _, decisions = run(texts, verify="exact")
    assert decisions["like it"]["duplicate_of"] == "long"


class FullFile:
    """Half of what is written fits on the disk."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        self._file.write(memoryview(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("folder", ["columns", "groups", "verified", "joined", "shingles", "exact"])
def test_a_disk_that_is_full_in_the_middle_of_a_dedup_stops_it_and_a_larger_one_goes_on(
    tmp_path, serial, folder
):
    docs = [corpora.Doc(i, text) for i, text in made_up(20).items()]
    corpora.write_shard(tmp_path / "in" / "a.jsonl", docs)
    recipe = corpora.write_recipe(tmp_path, [{"use": "minhash_dedup"}], input={"shards": ["in/*"]})
    expected = dataselect.run(recipe, sets=["output.folder=other", "work=w"])["digest"]
    commit = LocalStore.commit

    @contextlib.contextmanager
    def full(self, name):
        with commit(self, name) as file:
            yield FullFile(file) if name.startswith(folder) else file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "commit", full)
        with pytest.raises(DataselectError, match=rf"/{folder}/.*: cannot write: the disk is full") as error:
            dataselect.run(recipe)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "work").rglob(".tmp-*"))
    report = dataselect.run(recipe)
    assert report["digest"] == expected
    assert (report["tasks"]["reused"] > 0) == (folder != "columns")


# Size


def test_a_bucket_of_five_million_documents_has_as_many_candidates():
    from dataselect.kernels.groups import bucket_pairs

    members = np.arange(5_000_000, dtype=np.uint32)
    out = np.empty(len(members), np.uint64)
    assert bucket_pairs(members, np.array([0, len(members)]), np.empty(0, np.uint8), out) == len(members) - 1
    assert (out[:-1] & np.uint64(0xFFFFFFFF) == 0).all()


@pytest.mark.slow
def test_a_million_same_documents_are_one(tmp_path):
    (tmp_path / "in").mkdir()
    line = json.dumps({"text": "the same page is not found here, try another one"}) + "\n"
    (tmp_path / "in" / "a.jsonl").write_text(line * 1_000_000)
    given = {"shards": ["in/*"], "id": None}
    report = dataselect.run(corpora.write_recipe(tmp_path, [{"use": "minhash_dedup"}], input=given))
    assert report["rows"]["kept"] == 1
    assert report["dedups"][0]["clusters"]["largest"][0]["size"] == 1_000_000
    assert report["max_rss_bytes"]["worker"] < 3 << 30
