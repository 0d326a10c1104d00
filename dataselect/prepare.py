"""A recipe with everything found out that needs no task: shards, pieces, files, models that are given."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from dataselect.against import old_parts
from dataselect.core.errors import DataselectError, RecipeError
from dataselect.core.fingerprint import fingerprint
from dataselect.core.keys import artifact_name
from dataselect.core.pieces import Piece, Shard
from dataselect.engine.job import HoldoutCall, Job, OutputCall, ShuffleCall, StageCall
from dataselect.io.bundle import Bundle
from dataselect.io.fields import FieldSpec
from dataselect.io.file_systems import check_output
from dataselect.io.local_copies import local_file
from dataselect.io.reader import ReadSpec
from dataselect.io.store import Store, is_file, store_at, store_of
from dataselect.planning.decisions import Decisions, load_last
from dataselect.planning.fields import check_fields
from dataselect.planning.preflight import check_columns, check_shuffled
from dataselect.planning.reads import plan_reads
from dataselect.planning.recipe import Recipe
from dataselect.planning.shards import cut_pieces, list_shards, sample_pieces
from dataselect.publish import check_folder, read_manifest
from dataselect.stages.base import ORDINAL, DedupStage, FittedStage, SelectStage, Stage, stage_labels
from dataselect.walk import Inputs

_SEGMENT_PIECES = 2
"""A long compressed shard commits its columns every this many times `piece_bytes`."""


@dataclass
class Prepared:
    """A recipe with everything found out that needs no task."""

    recipe: Recipe
    inputs: Inputs
    work: Store
    output: Store
    decisions: Decisions


def prepare(recipe: Recipe, *, sample: float | None, rehash: bool) -> Prepared:
    check_output("output.folder", recipe.output.folder)
    check_output("work", recipe.work)
    output = store_at(recipe.output.folder, durable=True)
    work = store_at(recipe.work)
    check_folder(output)
    shards = list_shards(recipe.input.shards)
    _check_apart(shards, recipe)
    for spec in recipe.stages:
        spec.stage.on_disk().check_files()
    check_columns(shards, recipe.input, recipe.output)
    columns = {name for spec in recipe.stages for name in spec.stage.output_columns()}
    check_fields(shards, recipe.fields, columns)
    pieces = cut_pieces(shards, recipe.input.piece_bytes, stop_at_bad=recipe.input.on_bad_shard == "stop")
    _check_names(pieces)
    if recipe.output.shuffle is not None:
        check_shuffled(pieces, recipe.output)
    share = 1.0
    stages = [spec.stage for spec in recipe.stages]
    if sample is not None:
        for spec in recipe.stages:
            if ORDINAL in spec.stage.input_columns():
                raise RecipeError(f"--sample: {spec.use} joins rows by their order, so it needs all of them")
        chosen, share = sample_pieces(pieces, sample)
        pieces = [pieces[i] for i in chosen]
        stages = [stage.scaled(sample) if isinstance(stage, SelectStage) else stage for stage in stages]
    given = _given_models(recipe, stages, output, work)
    files = [
        {name: _file_digest(work, path, rehash=rehash) for name, path in stage.file_fields().items()}
        for stage in stages
    ]
    inputs = Inputs(
        job=_job(recipe, stages, share),
        stages=stages,
        stage_fingerprints=[
            s.compute_fingerprint({name: digest for name, (digest, _) in of.items()})
            for s, of in zip(stages, files, strict=True)
        ],
        reads=plan_reads(stages, frozenset(i for i in given if isinstance(stages[i], FittedStage))),
        given_models=given,
        pieces=pieces,
        on_bad_shard=recipe.input.on_bad_shard,
        bad_rows_allowed=recipe.input.bad_rows_allowed,
        rehash=rehash,
        memory_bytes=recipe.memory,
        file_bytes=[sum(n_bytes for _, n_bytes in of.values()) for of in files],
        fields=tuple(FieldSpec(use.name, use.type) for use in recipe.fields),
        against={
            i: old_parts(recipe, i) for i, s in enumerate(stages) if isinstance(s, DedupStage) and s.against
        },
    )
    return Prepared(recipe, inputs, work, output, Decisions(load_last(work, output.url)))


def _job(recipe: Recipe, stages: Sequence[Stage], share: float) -> Job:
    spec, out = recipe.input, recipe.output
    text = spec.text if isinstance(spec.text, str) else tuple(spec.text)
    calls = tuple(
        StageCall(s.use, stage.model_dump(mode="json", by_alias=True), s.folder, stage.source())
        for s, stage in zip(recipe.stages, stages, strict=True)
    )
    return Job(
        read=ReadSpec(text, spec.id, spec.max_row_bytes, _SEGMENT_PIECES * spec.piece_bytes, spec.batch_rows),
        stages=calls,
        output=OutputCall(
            out.folder,
            out.format,
            tuple(out.add),
            tuple(sorted(out.columns.items())),
            out.dropped,
            out.copies,
            None if out.holdout is None else HoldoutCall(**out.holdout.model_dump()),
            None if out.shuffle is None else ShuffleCall(**out.shuffle.model_dump()),
            tuple(out.phases),
        ),
        work=recipe.work,
        sample_share=share,
        quarantine_bad_shards=spec.on_bad_shard == "quarantine",
    )


def _check_apart(shards: Sequence[Shard], recipe: Recipe) -> None:
    work, output = recipe.work.rstrip("/") + "/", recipe.output.folder.rstrip("/") + "/"
    if work.startswith(output) or output.startswith(work):
        raise RecipeError(
            f"{recipe.path}: work: {recipe.work} and output.folder: {recipe.output.folder} must not lie in "
            "each other, because the work folder may be deleted at any time"
        )
    for what, folder in (("output.folder", recipe.output.folder), ("work", recipe.work)):
        inside = next((shard.url for shard in shards if shard.url.startswith(folder.rstrip("/") + "/")), None)
        if inside:
            raise RecipeError(
                f"{recipe.path}: input.shards matches {inside}, which lies in {what}; keep them apart"
            )
    for pattern in recipe.input.shards:
        above = pattern.partition("**")[0]
        if above != pattern and fnmatch.fnmatchcase(recipe.output.folder + "/", above + "*"):
            raise RecipeError(
                f"{recipe.path}: input.shards: {pattern} would match what is written to "
                f"{recipe.output.folder}; keep them apart"
            )


def _check_names(pieces: Sequence[Piece]) -> None:
    twice = [name for name, n in Counter(piece.name for piece in pieces).items() if n > 1]
    if twice:
        raise RecipeError(f"input.shards: two output shards would be named {twice[0]}; rename an input shard")


def _given_models(recipe: Recipe, stages: Sequence[Stage], output: Store, work: Store) -> dict[int, str]:
    """Stage -> artifact in the work store of a model by path, or frozen from the last published run."""
    manifest = read_manifest(output)
    given = {}
    for i, (stage, label) in enumerate(zip(stages, stage_labels(stages), strict=True)):
        if not isinstance(stage, (FittedStage, SelectStage)) or stage.fit == "exact":
            continue
        if stage.fit == "frozen":
            fitted = (manifest or {}).get("fitted", {}).get(label)
            if manifest is None or fitted is None:
                continue  # the first run fits, and later ones freeze what it published
            source, name = output, f"{manifest['generation']}/{fitted['name']}"
        else:
            path = stage.fit if "://" in stage.fit else str(Path(recipe.stages[i].folder) / stage.fit)
            if not is_file(path):
                raise RecipeError(
                    f"{recipe.path}: stage {stage.use}: fit: expected exact, frozen or a file; no file {path}"
                )
            source, name = store_of(path)
        digest = _fitted_bundle(recipe, i, source, name).digest
        given[i] = artifact_name("given", digest)
        if not work.exists(given[i]):
            with source.open(name) as old, work.commit(given[i]) as new:
                shutil.copyfileobj(old, new)
    return given


def _fitted_bundle(recipe: Recipe, i: int, source: Store, name: str) -> Bundle:
    """A published model; RecipeError where it is none, of another stage, or fitted with other parameters."""
    stage, place = recipe.stages[i].stage, f"{recipe.path}: stages: {recipe.stages[i].use}: fit"
    try:
        bundle = Bundle(source, name)
    except DataselectError:
        raise RecipeError(f"{place}: {source.url}/{name} is no fitted model of dataselect") from None
    found, wanted = bundle.meta.get("stage"), stage.use
    if found != wanted:
        raise RecipeError(f"{place}: {source.url}/{name} is a model of {found}, not of {wanted}")
    there, here = bundle.meta["parameters"], stage.compute_params()
    differ = [key for key in here if here[key] != there.get(key)]
    if differ:
        key = differ[0]
        raise RecipeError(
            f"{place}: the model was fitted with {key.rstrip('_')}: {there.get(key)}, not {here[key]}; "
            "run with `fit: exact` once"
        )
    return bundle


def _file_digest(work: Store, path: str, *, rehash: bool) -> tuple[str, int]:
    """xxh3_128 of a file, remembered by path, size and time, and its bytes; `rehash` reads it in any case."""
    source, name = store_of(path)
    entry = source.stat(name)
    if entry is None:
        raise RecipeError(f"file not found: {path}")
    memo, version = f"files/{fingerprint(path)}.json", [entry.size, entry.version]
    try:
        record = json.loads(work.read(memo))
        if record["version"] == version and not rehash:
            return str(record["digest"]), entry.size
    except (OSError, ValueError):
        pass
    digest = xxhash.xxh3_128()
    with local_file(path).open("rb") as file:  # on an object store: the copy that the stage will read
        while block := file.read(4 << 20):
            digest.update(block)
    with work.commit(memo) as file:
        file.write(json.dumps({"version": version, "digest": digest.hexdigest()}).encode())
    return digest.hexdigest(), entry.size
