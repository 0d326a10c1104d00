"""Object stores: ranges read ahead, failing requests repeated, one lock, few requests, the same bytes."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import corpora
import fasttext_files
import pytest

import dataselect
from dataselect.core.errors import Locked, RecipeError, StoreError
from dataselect.engine import shared
from dataselect.io import file_systems, local_copies, object_lock, object_store, patience, range_reader
from dataselect.io.patience import patiently
from dataselect.io.range_reader import RangeReader
from dataselect.io.store import each, store_at
from dataselect.planning.shards import cut_pieces, list_shards


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """In this process; in workers botocore's own tries suffice."""
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.001)


# Reading ranges ----------------------------------------------------------------------------------------


@pytest.fixture
def ranged(monkeypatch):
    """A file of 10,000 bytes, its reader with small windows, and the ranges that were fetched."""
    monkeypatch.setattr(range_reader, "_FIRST_BYTES", 100)
    monkeypatch.setattr(range_reader, "_MOST_BYTES", 1000)
    data, fetched = random.Random(1).randbytes(10_000), []

    def fetch(start, stop):
        fetched.append((start, stop))
        return data[start:stop]

    return data, RangeReader(fetch, len(data)), fetched


@pytest.mark.parametrize("step", [1, 7, 100, 999, 5000, -1])
def test_reading_forward_gives_the_bytes_in_few_growing_ranges(ranged, step):
    data, reader, fetched = ranged
    assert b"".join(iter(lambda: reader.read(step), b"")) == data
    assert reader.read(1) == b""
    assert len(fetched) < 20
    assert sum(stop - start for start, stop in fetched) == len(data)


def test_any_reads_give_what_a_file_in_memory_gives(ranged):
    data, reader, _ = ranged
    plain, draw = io.BytesIO(data), random.Random(2)
    for _ in range(3000):
        if draw.random() < 0.5:
            where = draw.choice([(draw.randrange(11_000), 0), (draw.randrange(-9000, 1), 2)])
            assert reader.seek(*where) == plain.seek(*where)
        n_bytes = draw.choice([0, 1, 10, 150, 3000, -1])
        assert reader.read(n_bytes) == plain.read(n_bytes)
        assert reader.tell() == plain.tell()


def test_columns_that_are_read_side_by_side_are_each_read_once(ranged):
    data, reader, fetched = ranged
    for at in range(0, 2000, 50):
        for column in range(5):
            reader.seek(2000 * column + at)
            assert reader.read(50) == data[2000 * column + at :][:50]
    assert len(fetched) < 60  # of 200 reads
    assert sum(stop - start for start, stop in fetched) < 2 * len(data)


def test_a_walk_over_heads_of_blocks_reads_forward(ranged):
    _, reader, fetched = ranged
    for at in range(0, 10_000, 90):
        reader.seek(at)
        reader.read(3)
    assert len(fetched) < 20


def test_what_fails_ahead_of_the_reader_is_raised_where_it_is_read(monkeypatch):
    monkeypatch.setattr(range_reader, "_FIRST_BYTES", 10)

    def fetch(start, stop):
        if stop > 30:
            raise StoreError("no more")
        return bytes(stop - start)

    reader = RangeReader(fetch, 100)
    assert reader.read(20) == bytes(20)
    with pytest.raises(StoreError, match="no more"):
        reader.read()
    reader.close()


# Requests that fail ------------------------------------------------------------------------------------


class Throttled(Exception):
    """As botocore's: with a status."""

    response = {"ResponseMetadata": {"HTTPStatusCode": 503}}  # noqa: RUF012


class Denied(Exception):
    response = {"ResponseMetadata": {"HTTPStatusCode": 403}}  # noqa: RUF012


class NoCredentialsError(Exception):
    pass


class ClientAuthenticationError(Exception):
    """As Azure's, which may have no answer of the store: no login was found."""


class Busy(Exception):
    """As those of gcsfs (`code`), aiohttp (`status`) and Azure (`status_code`)."""

    def __init__(self, field):
        super().__init__("busy")
        setattr(self, field, 503)


def caused(error, cause):
    error.__cause__ = cause
    return error


def failing(error, times):
    left = [error] * times

    def request():
        if left:
            raise left.pop()
        return "answer"

    return request, left


@pytest.mark.parametrize(
    "error",
    [
        Throttled("SlowDown"),
        *map(Busy, ("code", "status", "status_code")),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(),
        EOFError(),
        caused(FileNotFoundError("x"), Busy("status")),  # as fsspec's HTTP
    ],
)
def test_a_request_is_repeated_until_it_succeeds(error):
    assert patiently("s3://b/x", failing(error, patience.TRIES - 1)[0]) == "answer"


def test_a_request_that_goes_on_failing_fails_by_name_in_one_sentence():
    request, left = failing(Throttled("SlowDown:\n Please reduce your request rate."), 99)
    sentence = (
        r"^s3://b/x: the store answered 503 \(SlowDown: Please reduce .*\), after 5 tries; run the same"
    )
    with pytest.raises(StoreError, match=sentence):
        patiently("s3://b/x", request)
    assert len(left) == 99 - 5


def test_what_its_package_repeated_for_long_is_not_repeated_unless_it_is_a_commit(monkeypatch):
    monkeypatch.setattr(patience, "_LONG_S", -1.0)
    for at_least in (1, 3):
        request, left = failing(Busy("code"), 99)
        with pytest.raises(StoreError, match="the store answered 503"):
            patiently("gs://b/x", request, at_least)
        assert len(left) == 99 - at_least


@pytest.mark.parametrize(
    "error",
    [
        Denied("AccessDenied"),
        PermissionError("Forbidden"),
        OSError("Forbidden: https://storage.googleapis.com/..."),  # gcsfs
        NoCredentialsError("none"),
        ClientAuthenticationError("none"),
    ],
)
def test_a_request_that_is_denied_is_not_repeated(error):
    request, left = failing(error, 99)
    with pytest.raises(StoreError, match=r"^s3://b/x: access denied; check the credentials"):
        patiently("s3://b/x", request)
    assert len(left) == 98


@pytest.mark.parametrize("error", [FileNotFoundError(), OSError(errno.ENOSPC, "full"), ZeroDivisionError()])
def test_answers_and_errors_of_our_own_are_left_alone(error):
    request, left = failing(error, 99)
    with pytest.raises(type(error)):
        patiently("s3://b/x", request)
    assert len(left) == 98


def test_an_upload_whose_abort_fails_too_is_repeated_for_what_failed_first(monkeypatch):
    store, tries = store_at("memory://uploads"), []

    class Upload(io.BytesIO):
        def commit(self):
            tries.append(self.getvalue())
            if len(tries) == 1:
                raise ConnectionResetError(errno.ECONNRESET, "the answer was lost")

        def discard(self):
            raise FileNotFoundError("NoSuchUpload")

        def close(self):
            pass

    monkeypatch.setattr(object_store, "_SPOOL_BYTES", 10)
    monkeypatch.setattr(store._fs, "open", lambda *args, **options: Upload())
    put(store, "x", bytes(100))
    assert tries == [bytes(100)] * 2


def test_a_protocol_that_is_unknown_or_not_installed_is_one_sentence(monkeypatch):
    with pytest.raises(RecipeError, match=r"^nonsense://b/x: .*[Pp]rotocol not known") as failure:
        store_at("nonsense://b/x")
    assert "\n" not in str(failure.value)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(
        RecipeError, match=r"^s3://b/x: the package .* is missing; pip install 'dataselect\[s3\]'"
    ):
        store_at("s3://b/x")


def test_an_endpoint_that_is_not_there_fails_by_name(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    file_systems.file_system("s3://")[0].clear_instance_cache()
    with pytest.raises(
        StoreError, match=r"^s3://b/x: the store can't be reached or broke off .*, after 5 tries"
    ):
        store_at("s3://b").read("x")
    file_systems.file_system("s3://")[0].clear_instance_cache()


# Locks -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "s3", "gs", "abfs"])
def far(request, tmp_path, new_bucket):
    if request.param == "memory":
        return store_at(f"memory://{tmp_path.name}-{time.time_ns()}/out")
    return store_at(new_bucket(request.param) + "/out")


def test_a_lock_is_for_one_at_a_time_and_is_given_back(far):
    locked = pytest.raises(Locked, match=r"another run is writing .*\(process \d+ on .*expires in 1\d\d s")
    with object_lock.object_lock(far, "lock"), locked, object_lock.object_lock(far, "lock"):
        pass
    with object_lock.object_lock(far, "lock"):
        pass
    assert list(far.list()) == []


@pytest.mark.parametrize("left", [b"", b"half a rec", json.dumps({"owner": "dead", "renewed": 1.0}).encode()])
def test_the_lock_of_a_run_that_was_killed_expires(far, left):
    with far.commit("lock") as file:
        file.write(left)
    with object_lock.object_lock(far, "lock"):
        assert json.loads(far.read("lock"))["owner"] != "dead"


def test_a_lock_is_renewed_while_its_run_lives(far, monkeypatch):
    monkeypatch.setattr(object_lock, "_RENEW_S", 0.01)
    with object_lock.object_lock(far, "lock"):
        first = json.loads(far.read("lock"))
        corpora.wait_until(lambda: json.loads(far.read("lock"))["renewed"] > first["renewed"])


def test_a_run_whose_lock_was_taken_says_so_and_leaves_it(far):
    other = json.dumps({"owner": "other", "renewed": time.time()}).encode()
    with object_lock.object_lock(far, "lock") as check:
        check()
        put(far, "lock", other)
        with pytest.raises(Locked, match="another run took it"):
            check()
    assert json.loads(far.read("lock"))["owner"] == "other"


large_bodies = pytest.mark.filterwarnings(
    "ignore:Sending a large body"
)  # aiohttp's advice to gcsfs and adlfs


# What a store holds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["sp ace.txt", "per%20cent", "pl+us", "ha#sh", "ünï-日本", "a[1]*", "co:lon", "till~(x)!"]
)
def test_any_name_is_written_listed_read_copied_and_deleted(far, name):
    put(far, f"d/{name}", b"content")
    far.copy(f"d/{name}", f"e/{name}")
    assert [(entry.name, entry.size) for entry in far.list("d")] == [(f"d/{name}", 7)]
    assert far.stat(f"d/{name}").is_like(next(iter(far.list("d"))))
    assert far.open(f"e/{name}").read() == far.read(f"e/{name}") == b"content"
    far.delete(f"d/{name}")
    far.delete(f"d/{name}")
    assert (far.exists(f"d/{name}"), far.exists(f"e/{name}"), far.stat(f"d/{name}")) == (False, True, None)


def test_ends_and_ranges_are_read_also_of_empty_and_short_files(far):
    put(far, "x", b"0123456789")
    put(far, "none", b"")
    spans = [(0, None), (-3, None), (-30, None), (2, 5), (4, None)]
    assert [far.read("x", *span) for span in spans] == [
        b"0123456789", b"789", b"0123456789", b"234", b"456789"
    ]  # fmt: skip
    assert [far.read("none"), far.read("none", -5), far.open("none").read()] == [b"", b"", b""]
    assert far.exists("none")
    with pytest.raises(FileNotFoundError):
        far.read("missing")


@large_bodies
def test_a_file_of_several_parts_appears_whole_or_not_at_all(far):
    content = random.Random(1).randbytes((16 << 20) + 1)

    def fail():
        with far.commit("big") as file:
            file.write(content)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert far.stat("big") is None
    put(far, "big", content)
    assert far.read("big") == content


@large_bodies
def test_a_file_that_is_replaced_by_one_of_its_size_is_noticed(far):
    put(far, "x", b"a" * 3_000_000)
    before = far.stat("x")
    put(far, "y", b"b" * 3_000_000)

    def read():
        with far.open("x") as file:
            file.read(1)
            put(far, "x", b"b" * 3_000_000)
            file.seek(-1, 2)
            file.read(1)

    with pytest.raises(StoreError, match="x: it was replaced while it was read"):
        read()
    assert not far.stat("x").is_like(before)


# Copies of models --------------------------------------------------------------------------------------


@pytest.fixture
def copies(tmp_path, monkeypatch):
    folder = tmp_path / "copies"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(local_copies, "copies_folder", lambda: folder)
    return folder


def test_a_copy_is_made_once_and_again_when_the_file_changes(far, copies):
    for content in (b"1", b"2", b"2"):
        with far.commit("models/m.bin") as file:
            file.write(content)
        path = local_copies.local_copy(far, "models/m.bin")
        assert (path.name, path.read_bytes()) == ("m.bin", content)
    far.list = None
    far.open = None
    assert local_copies.local_copy(far, "models/m.bin") == path
    with pytest.raises(FileNotFoundError):
        local_copies.local_copy(far, "models/none.bin")


def test_copies_that_are_old_or_too_many_go(far, copies, monkeypatch):
    paths = []
    for i in range(4):
        with far.commit(str(i)) as file:
            file.write(bytes(100))
        paths.append(local_copies.local_copy(far, str(i)))
        monkeypatch.setattr(local_copies, "_MOST_BYTES", 250)
        if i < 3:
            os.utime(paths[i].parent, (time.time() - 100 + i, time.time() - 100 + i))
    assert [path.exists() for path in paths] == [False, False, True, True]


# Whole runs --------------------------------------------------------------------------------------------


def put(store, name, content):
    with store.commit(name) as file:
        file.write(content)


def upload(folder: Path, url: str):
    store = store_at(url)
    for path in folder.rglob("*"):
        if path.is_file():
            put(store, path.relative_to(folder).as_posix(), path.read_bytes())


def far_recipe(folder: Path, url: str, stages, **sections):
    """The same recipe as corpora.write_recipe, with everything on the store."""
    shards = [f"{url}/in/**/*{end}" for end in (".jsonl", ".gz", ".zst", ".parquet")]
    sections = {
        "input": {"shards": shards},
        "output": {"folder": f"{url}/out"},
        "work": f"{url}/work",
        **sections,
    }
    return corpora.write_recipe(folder / "far", stages, **sections)


def stages_at(base, model):
    """One of every kind, files below `base`."""
    stages = [dict(stage) for stage in corpora.ALL_STAGES]
    stages[3]["target"] = f"{base}/target.jsonl"
    quality = {"use": "fasttext_quality", "model": f"{base}/{model}", "label": "hq"}
    return [*stages[:3], quality, *stages[3:]]


@pytest.fixture
def project(tmp_path, s3):
    """A corpus, a target and a model, on the disk and on the store; digest of the local run."""
    corpora.make_corpus(tmp_path / "in", 24)
    corpora.make_target(tmp_path / "target.jsonl")
    words = [word.encode() for word in corpora.MEDICAL[:40]]
    fasttext_files.MadeModel(words, [b"__label__hq", b"__label__lq"]).write(tmp_path / "quality.bin")
    upload(tmp_path, s3.url)
    near = corpora.write_recipe(tmp_path, stages_at(str(tmp_path), "quality.bin"))
    digest = dataselect.run(near, workers=1)["digest"]
    s3.log()
    return tmp_path, digest


def check_run(recipe, s3, digest, every, **options):
    """The digest is that of a local run although every so-manyth request fails; a second run does nothing."""
    s3.faults(every)
    report = dataselect.run(recipe, **options)
    assert report["digest"] == digest
    s3.faults(0)
    s3.log()
    again = dataselect.run(recipe, **options)
    assert again["up_to_date"]
    assert again["tasks"]["run"] == 0
    return report


def test_a_run_on_a_store_that_fails_now_and_then_gives_the_bytes_of_a_local_one(project, s3):
    folder, digest = project
    recipe = far_recipe(folder, s3.url, stages_at(s3.url, "quality.bin"))
    report = check_run(recipe, s3, digest, every=40, workers=2)
    log = s3.log()
    assert len(log) < 100  # of 6 pieces; the first run takes some 450
    assert top_names(f"{s3.url}/out") == {"manifest.json", report["generation"]}


def top_names(url):
    return {entry.name.split("/")[0] for entry in store_at(url).list()}


def test_the_last_two_generations_are_kept(project, s3):
    folder, _ = project
    recipe = far_recipe(folder, s3.url, corpora.ALL_STAGES[:1])
    made = [
        dataselect.run(recipe, workers=1, sets=[f"stages.0.min_chars={n}"])["generation"]
        for n in (150, 160, 170)
    ]
    assert top_names(f"{s3.url}/out") == {"manifest.json", *made[1:]}


def test_hundreds_of_shards_are_one_listing(s3):
    store = store_at(s3.url)
    data = corpora.jsonl(corpora.docs(1))
    each(lambda i: put(store, f"in/{i % 7}/{i:05d}.jsonl", data), range(300), far=True)
    s3.log()
    pieces = cut_pieces(list_shards([f"{s3.url}/in/**/*.jsonl"]), 1 << 20)
    assert sum(len(piece.shards) for piece in pieces) == 300
    assert [what for what, _ in s3.log()] == ["LIST"]


def test_a_model_is_fetched_once_for_all_tasks_and_workers(project, s3):
    folder, _ = project
    recipe = far_recipe(folder, s3.url, stages_at(s3.url, "quality.bin"))
    dataselect.run(recipe, workers=2)
    log = s3.log()
    fetched = Counter(path for what, path in log if what == "GET")
    assert sum(n for path, n in fetched.items() if path.endswith("/quality.bin")) <= 2  # its digest, its copy
    prepared = [n for path, n in fetched.items() if ("work", "prepared") in pairwise(path.split("/"))]
    assert prepared
    assert max(prepared) == 1  # 6 tasks, 2 workers


def test_files_of_any_stage_may_lie_on_a_store(project, s3):
    folder, _ = project
    ids = [json.dumps({"id": doc.id, "score": i}).encode() for i, doc in enumerate(corpora.docs(100))]
    put(store_at(s3.url), "scores.jsonl", b"\n".join(ids))
    stage = {"use": "join_scores", "file": f"{s3.url}/scores.jsonl", "missing": "drop", "min_matched": 0.1}
    far = dataselect.run(far_recipe(folder, s3.url, [stage]), workers=1)
    put(store_at(folder), "scores.jsonl", b"\n".join(ids))
    near = corpora.write_recipe(folder, [{**stage, "file": "scores.jsonl"}], output={"folder": "joined"})
    assert far["digest"] == dataselect.run(near, workers=1)["digest"]
    assert far["rows"]["kept"] > 0


def test_two_runs_into_one_folder_are_kept_apart(project, s3):
    folder, _ = project
    recipe = far_recipe(folder, s3.url, [corpora.own_stage(folder / "far", "Waiting", flags=str(folder))])
    with corpora.start("run", recipe, "--quiet", "--workers", 1) as first:
        corpora.wait_until((folder / "began").exists)
        with pytest.raises(Locked) as failure:
            dataselect.run(recipe, workers=1)
        (folder / "go").touch()
        out, _ = corpora.finish(first)
    assert f"{s3.url}/out: another run is writing to this output folder (process {first.pid} on " in str(
        failure.value
    )
    assert "published" in out


def test_what_dataselect_did_not_write_is_left_alone(project, s3):
    folder, _ = project
    put(store_at(s3.url), "out/notes.txt", b"mine")
    with pytest.raises(RecipeError, match=r"out holds files that dataselect did not write \(notes.txt\)"):
        dataselect.run(far_recipe(folder, s3.url, corpora.ALL_STAGES[:1]))


def test_workers_share_a_run_by_a_store_alone(project, s3, monkeypatch):
    monkeypatch.setattr(shared, "_FAR_PAUSE_S", (0.05, 0.5))
    folder, digest = project
    machines = [folder / "a", folder / "b"]
    for machine in machines:  # each has copies of the recipe and of the files of its stages
        machine.mkdir()
        for name in ("target.jsonl", "quality.bin"):
            shutil.copy(folder / name, machine)
    recipes = [far_recipe(machine, s3.url, stages_at(str(machine), "quality.bin")) for machine in machines]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(dataselect.run, recipe, engine="shared", workers=1) for recipe in recipes]
        assert {future.result()["digest"] for future in futures} == {digest}
    results = Counter(path for what, path in s3.log() if what == "PUT" and path.endswith(".done"))
    assert len({path.split("/claims/")[1].split("/")[0] for path in results}) == 1
    assert set(results.values()) == {1}
    assert top_names(f"{s3.url}/out") == {"manifest.json", futures[0].result()["generation"]}
    assert "claims" not in top_names(f"{s3.url}/work")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["gs", "abfs"])
def test_a_run_on_another_store_gives_the_bytes_of_a_local_one(new_bucket, protocol, tmp_path, serial):
    url = new_bucket(protocol)
    corpora.make_corpus(tmp_path / "in", 24)
    corpora.make_target(tmp_path / "target.jsonl")
    upload(tmp_path, url)
    near, far = (
        [{"use": "minhash_dedup"}, {"use": "ngram_importance", "target": f"{base}/target.jsonl"}]
        for base in (tmp_path, url)
    )
    recipe = far_recipe(tmp_path, url, far)
    digest = dataselect.run(corpora.write_recipe(tmp_path, near))["digest"]
    assert dataselect.run(recipe)["digest"] == digest
    assert dataselect.run(recipe)["up_to_date"]
    shard = (tmp_path / "in" / "a.jsonl").read_bytes()
    for content in (shard.replace(b"a", b"b", 1), shard):
        put(store_at(url), "in/a.jsonl", content)
        changed = dataselect.run(recipe)
        assert changed["tasks"]["checked_shards"] == 1
        assert (changed["digest"] == digest) == (content == shard)
    generations = {entry.name.split("/")[0] for entry in store_at(f"{url}/out").list()} - {"manifest.json"}
    assert len(generations) == 2


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray", "shared"])
@pytest.mark.parametrize("every", [5, 11])
def test_every_engine_gives_the_bytes_of_a_local_run(project, s3, engine, every):
    folder, digest = project
    recipe = far_recipe(folder, s3.url, stages_at(s3.url, "quality.bin"))
    if engine == "ray":
        ray = pytest.importorskip(
            "ray", reason="the Ray engine needs the extra: pip install 'dataselect[ray]'"
        )
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            check_run(recipe, s3, digest, every, engine="ray")
        finally:
            ray.shutdown()
        return
    check_run(recipe, s3, digest, every, engine=engine, workers=2)
