"""The Ray engine on a cluster that loses nodes, lacks room, or has nodes that can't take part."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import corpora
import fasttext_files
import pytest
import test_object_stores as far

import dataselect
from dataselect.core.errors import DataselectError
from dataselect.core.listener import Listener
from dataselect.engine import cluster as cluster_engine
from dataselect.engine import nodes
from dataselect.engine.tasks import Task

ROOT = corpora.Path(__file__).parents[1]


# A node that is lost -----------------------------------------------------------------------------------


class LosesNode(Listener):
    """Takes a node out of the cluster when the first of several tasks of a phase is done."""

    def __init__(self, cluster, phase):
        self.cluster, self.wanted, self.lost, self.now = cluster, phase, None, False

    def phase(self, name, n_tasks, n_run, n_bytes):
        self.now = name.startswith(self.wanted) and n_run > 2

    def task_done(self, name, n_bytes, figures):
        if self.now and self.lost is None:
            self.lost = name
            self.cluster.remove_node(self.cluster.nodes.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def quickstart(sample, tmp_path_factory):
    """For the quick start's recipe in some 20 pieces: arguments of a run by name, digest of a local run."""
    folder = tmp_path_factory.mktemp("quickstart")
    words = [word.encode() for word in corpora.GENERAL[:40]]
    fasttext_files.MadeModel(words, [b"__label__hq", b"__label__lq"]).write(folder / "quality.bin")
    shards = ", ".join(f"{sample}/raw/**/*{end}" for end in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"))
    sets = [
        f"input.shards=[{shards}]",
        "input.piece_bytes=1MiB",
        f"stages.3.model={folder}/quality.bin",
        f"stages.4.target={sample}/target.jsonl",
        "memory=4MiB",  # several tasks in every step of a dedup
    ]

    def arguments(name):
        return {"sets": [*sets, f"output.folder={folder}/{name}", f"work={folder}/{name}-work"]}

    local = dataselect.run(ROOT / "configs/quickstart.yaml", workers=2, **arguments("local"))
    assert local["rows"]["kept"] > 1000
    return arguments, local["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["read 1", "dedup 2:minhash_dedup", "write"])
def test_the_quick_start_survives_the_loss_of_a_node(quickstart, cluster, phase):
    arguments, digest = quickstart
    listener = LosesNode(cluster, phase)
    given = arguments(phase.split()[0])
    report = dataselect.run(
        ROOT / "configs/quickstart.yaml", engine="ray", address=cluster.address, listener=listener, **given
    )
    cluster.nodes.append(cluster.add_node(num_cpus=1))
    assert listener.lost
    assert report["digest"] == digest


# Everything on a store ---------------------------------------------------------------------------------


def stages_with(base):
    """What came after the reference recipe: edits, dedups of fields and against old ones, targets, phases."""
    target = {"target": f"{base}/target.jsonl"}
    return [
        {"use": "c4@datatrove", "min_sentences": 0},
        {"use": "url_dedup", "url": "url", "keep": {"latest": "when"}},
        {"use": "minhash_dedup", "ngram": 3, "against": [f"{base}/old/*.jsonl"], "save_index": True},
        {"use": "target_similarity", **target},
        {"use": "betr", **target},
        {"use": "cross_entropy_difference", **target},
        {"use": "target_overlap", **target},
        {"use": "select", "as": "base", "method": "uniform", "keep": {"fraction": 0.6}},
        {"use": "select", "as": "final", "by": "betr", "method": "copies", "keep": {"fraction": 0.3}},
        {"use": "filter", "where": "base > 0 or final > 0"},
    ]


OUTPUTS = [
    {"phases": ["base", "final"], "holdout": {"fraction": 0.2}, "add": ["target_similarity"]},
    {"shuffle": {"seed": 1, "shards": 3}, "holdout": {"fraction": 0.2, "by": "url"}, "format": "jsonl.zst"},
]


def newer_recipe(folder, base, output):
    stages = stages_with(base)
    if "shuffle" in output:
        stages[2]["save_index"] = False
        stages[-2]["as"] = "final"
    sections = {
        "input": {"shards": [f"{base}/in/*.jsonl"], "piece_bytes": 8192},
        "output": {"folder": f"{base}/out", **output},
        "work": f"{base}/work",
        "memory": "1MiB",
    }
    return corpora.write_recipe(folder, stages, **sections)


@pytest.mark.slow
@pytest.mark.parametrize("output", OUTPUTS, ids=["phases", "shuffle"])
def test_newer_features_on_a_store_give_the_bytes_of_a_local_run(tmp_path, s3, output):
    ray = pytest.importorskip("ray", reason="the Ray engine needs the extra: pip install 'dataselect[ray]'")
    near = tmp_path / "near"
    for name, first in (("in/a", 0), ("in/b", 40), ("old/a", 20)):
        path = near / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = corpora.docs(60, first)
        lines = [row.line(url=f"http://x.org/{i // 2}", when=2000 + i % 20) for i, row in enumerate(rows)]
        path.write_bytes(b"".join(lines))
    corpora.make_target(near / "target.jsonl")
    digest = dataselect.run(newer_recipe(near, str(near), output), workers=1)["digest"]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for engine in ("local", "ray"):
            far.upload(near / "in", f"{s3.url}/{engine}/in")
            far.upload(near / "old", f"{s3.url}/{engine}/old")
            far.put(far.store_at(f"{s3.url}/{engine}"), "target.jsonl", (near / "target.jsonl").read_bytes())
            recipe = newer_recipe(tmp_path / engine, f"{s3.url}/{engine}", output)
            report = dataselect.run(recipe, engine=engine)
            assert report["digest"] == digest
            assert report["rows"]["kept"] > 5
    finally:
        ray.shutdown()


# Nodes that can't take part ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "version, sentence",
    [
        (None, r"node \S+ can't import dataselect \(.*\); pip install 'dataselect\[ray\]==\S+' there$"),
        ("0.0.9", r"node \S+ has dataselect 0.0.9, but the driver has \S+$"),
    ],
)
def test_a_node_without_this_version_is_named(tmp_path, cluster, monkeypatch, version, sentence):
    corpora.make_corpus(tmp_path / "in", 12)
    recipe = corpora.recipe_with(tmp_path, "HasWord")
    package = tmp_path / "other" / "dataselect" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text(f"__version__ = {version!r}" if version else "raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(package.parents[1]))
    monkeypatch.chdir(tmp_path)  # Ray's workers import from the driver's folder, too
    node = cluster.add_node(num_cpus=1)
    try:
        with pytest.raises(DataselectError, match=sentence):
            dataselect.run(recipe, engine="ray", address=cluster.address)
    finally:
        cluster.remove_node(node)
    assert not (tmp_path / "work/columns").exists()


def shipped(folder, **versions):
    job = SimpleNamespace(work=str(folder), output=SimpleNamespace(folder=str(folder / "out")))
    made = nodes.Shipped(job, nodes.node_versions() | versions, "token")
    (folder / "nodes").mkdir(exist_ok=True)
    (folder / made.mark).write_text(made.token)
    return made


def test_a_node_complains_of_other_versions_and_of_folders_that_are_its_own(tmp_path):
    here = shipped(tmp_path)
    assert nodes.complaint_of(here, [("input.shards: x", __file__)]) is None
    assert nodes.complaint_of(shipped(tmp_path, numba="0.1"), []).endswith(
        ", but the driver has numba 0.1; install the same on every node"
    )
    assert nodes.complaint_of(here, [("s: model: m.bin", f"{tmp_path}/m.bin")]).startswith(
        "does not see s: model: m.bin; shards, models, work and output must"
    )
    (tmp_path / here.mark).write_text("of an earlier run")
    assert nodes.complaint_of(here, []).startswith(f"does not see work: {tmp_path};")
    (tmp_path / here.mark).unlink()
    assert nodes.complaint_of(here, []).startswith(f"does not see work: {tmp_path};")
    assert "can't use the storage" in nodes.complaint_of(here, [("model", "nonsense://b/x")])


def test_a_task_that_no_node_can_hold_does_not_wait_silently_or_for_ever(monkeypatch):
    resources, said = [{"CPU": 2.0, "memory": 5e8}, {"memory": 9e9}], []
    cluster = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": has} for has in resources])
    room = nodes.Room(cluster, said.append)
    task = Task("join 2:minhash_dedup", "", None, 16 * 10**9)
    room.check(task)
    room.check(task)
    wants = "join 2:minhash_dedup: wants 1 core and 16.00 GB, but the largest node offers 0.50 GB"
    assert said == [f"{wants}; waiting 5 minutes for a larger one to join"]
    monkeypatch.setattr(nodes, "PATIENCE_S", -1)
    with pytest.raises(DataselectError, match=f"^{wants}; start larger nodes"):
        room.check(task)
    del resources[0]
    with pytest.raises(DataselectError, match="but no node offers a core; start"):
        room.check(task)
    resources.append({"CPU": 1.0, "memory": 2e10})
    room.check(task)


def test_a_task_too_large_for_its_node_is_one_sentence():
    told = (
        "Memory on the node (IP: 10.0.0.7, ID: fbe7) was 5.03GB used / 23.54GB limit (0.2)\nOOM kill reason"
    )
    assert str(cluster_engine._out_of_memory(Task("read 1 a", "", None), told)).startswith(
        "read 1 a: its node ran out of memory 3 times, last on 10.0.0.7 (5.03GB used / 23.54GB limit), "
    )


# A driver that is stopped ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_driver_that_is_stopped_leaves_neither_tasks_nor_lock(tmp_path, cluster, number, code):
    corpora.make_corpus(tmp_path / "in", 12)
    recipe = corpora.recipe_with(tmp_path, "Waiting", flags=str(tmp_path))
    flags = ["--quiet", "--engine", "ray", "--address", cluster.address]
    with corpora.start("run", recipe, *flags) as driver:
        corpora.wait_until((tmp_path / "began").exists, 120)
        driver.send_signal(number)
        _, err = corpora.finish(driver)
    assert driver.returncode == code
    if code > 0:
        assert err.strip().endswith("ed; the same command goes on from here")
        assert "Traceback" not in err
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        (tmp_path / "go").touch()
        report = dataselect.run(recipe, engine="ray", workers=2)
    assert not ray.is_initialized()
    assert report["digest"] == dataselect.run(recipe, workers=1, sets=["output.folder=o", "work=w"])["digest"]
